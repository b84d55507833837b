//! End to end in a booted kernel, as its PID 1's job: `cargo xtask test vm`. What is about the command line alone
//! is left to the host.

keytrail_tests::cases! {
    reads {
        cat_is_one_read
        planted_while_the_agent_runs
        looking_is_not_reading
        opening_is_not_reading
        other_ways_of_reading
        tmpfs_is_not_silent
    }
    inventory_live {
        written_anywhere
        clean_files_are_silent
        mounted_later
    }
    sends_tls {
        bearer_by_curl
        thirty_curls
        python_posts_a_service_account
    }
    tls_stacks {
        gnutls_is_never_silent
    }
    sends_tcp {
        found_in_a_file_and_used_at_once
        longer_than_what_is_inspected
        environment_posted_in_clear
        holder_sends_other_bytes
        stranger_sends_noise
    }
    taken {
        out_of_an_environment
        out_of_memory
        looking_is_not_taking
        inside_a_pid_namespace
    }
    opened {
        through_a_fifo
    }
    restart {
        killed_in_mid_load
    }
    leaks {
        load_leaves_nothing
        rings_are_searched
    }
    bad_input {
        environment_of_3_mb
    }
    bad_places {
        without_btf
        in_a_pid_namespace
    }
    cli {
        trace_of_a_short_command
        doctor_names_every_signal
        doctor_names_the_better_tier
    }
    matrix {
        signals_are_as_documented
    }
}

// The guest of aarch64 has what the host has elsewhere: nothing of aarch64 runs there.
#[cfg(target_arch = "aarch64")]
keytrail_tests::cases! {
    tls_programs {
        go_hey
    }
}
