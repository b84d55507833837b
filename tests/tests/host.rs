//! End to end on this machine's kernel, as root: `cargo xtask test host`.

keytrail_tests::cases! {
    reads {
        cat_is_one_read
        planted_while_the_agent_runs
        read_right_after_it_was_written
        homes_are_found
        looking_is_not_reading
        opening_is_not_reading
        failing_is_not_reading
        names_of_any_length_and_kind
        other_ways_of_reading
        tmpfs_is_not_silent
        readers_are_named
        other_mount_namespaces
        after_each_change
    }
    reads_tmpfs {
        gone_with_their_readers
        each_call
        replaced
    }
    incidents {
        an_uploader_sends_the_environment
        a_runner_is_read
        an_installation_drives_an_agent
        an_installation_gathers_keys
        a_path_file_stays
        the_right_key_to_a_wrong_place
        an_installation_reads_its_environment
        a_package_takes_the_identity_of_its_workflow
        a_package_publishes_others
        a_script_packs_keys
        a_job_prints_its_secret
        a_fresh_program_and_a_tracked_file
        what_was_left_behind
        a_module_asks_the_dns
        a_script_encrypts_a_servers_key
        a_backup_of_keys_alone
        what_was_downloaded_stays
        a_person_lets_somebody_in
    }
    ways_out {
        packed_encrypted_and_uploaded
        given_to_a_client_to_send
        reported_in_a_body
        sent_by_a_shell
        reported_in_a_url_or_packed
        by_a_program_of_many
        encrypted_by_a_script
    }
    ordinary {
        a_day_accuses_nobody
    }
    inventory {
        owners_by_rpm
        network_file_systems
        progress_on_a_terminal
        older_than
        holders_by_their_cgroups
    }
    inventory_live {
        written_anywhere
        clean_files_are_silent
        a_storm_of_files
        mounted_later
    }
    sends_tls {
        bearer_by_curl
        two_hundred_curls
        python_posts_a_service_account
        the_users_python_posts_a_service_account
        connections_are_distinguished
    }
    identified {
        curl_signs_for_aws
        google_auth_signs_an_assertion
        openssl_signs_a_token
        openssl_shows_a_client_certificate
        ssh_agent_is_asked_to_sign
        psql_logs_in_by_scram
    }
    received {
        an_access_token_is_followed
    }
    metadata {
        curl_asks_for_the_machines_role
        what_is_answered_is_followed
        botocore_asks_for_the_machines_role
    }
    tls_stacks {
        gnutls_is_never_silent
        node_is_never_silent
        node_connections_are_never_swapped
        java_says_why
        asyncio_finds_its_socket
        a_trace_names_its_own_libraries
        go_is_never_silent
        kubectl_is_never_silent
    }
    swapped {
        no_secret_goes_to_anothers_place
    }
    tls_load {
        destinations_hold_under_load
    }
    tls_programs {
        go_hey
        go_gh
        go_rclone
        go_restic
        go_kubectl
        go_plain
        go_stripped
        go_pie
        openssl_wheel
        openssl_static
        openssl_stripped
        s2n_awscrt
        nss_tstclnt
        boringssl_bun
        boringssl_grpcio
        boringssl_envoy
        rustls_uv
        rustls_deno
        rustls_maturin
    }
    tls_rustls {
        connections_are_never_swapped
        nothing_of_a_holder_in_it
    }
    sends_tcp {
        found_in_a_file_and_used_at_once
        longer_than_what_is_inspected
        environment_posted_in_clear
        one_send_is_one_group
        holder_sends_other_bytes
        stranger_sends_noise
        read_file_sent_by_the_reader
        again_and_again
    }
    sends_local {
        curl_to_an_api_on_a_unix_socket
        halves_and_answers_over_a_unix_socket
        what_is_logged
        datagrams
        secrets_in_names
    }
    pipes {
        seen_at_the_end_of_a_pipeline
        encrypted_on_its_way
        fed_and_taken_by_python
        a_helper_of_git
        handed_on_in_a_file
        written_at_the_end_of_a_pipeline
        given_to_a_child
        kept_by_a_daemon
        said_to_a_parent
        nothing_of_a_holder_in_it
    }
    opened {
        through_a_fifo
        encrypted_into_a_fifo
        through_a_terminal
    }
    busy {
        files_that_do_not_answer
        a_process_that_does_not_let_itself_be_read
        excluded_places
        a_trace_ends_beside_a_busy_reader
        a_file_of_ninety_thousand_credentials
        it_ends_beside_a_locked_ledger
    }
    taken {
        out_of_an_environment
        out_of_memory
        looking_is_not_taking
        inside_a_pid_namespace
        and_sent
        by_process_vm_readv
        by_process_vm_readv_as_it_reads
        a_refused_call_takes_nothing
        by_ptrace
        a_debugger_of_its_own_child
        by_pidfd_getfd
        by_process_vm_readv_inside_a_pid_namespace
        by_a_core_dump
        by_gcore
    }
    written {
        echo_into_a_file
        into_a_pipe
        on_a_terminal
        in_pieces
        much_of_something_else
        saving_is_no_send
        what_cannot_be_written
        what_keytrail_prints
    }
    file_life {
        opened_to_others
        rewritten_unseen
        rotated
        replaced
        moved_and_deleted
        linked_and_covered
        linked_over
        swapped
        swapped_behind_a_watched_name
        the_passport_shows_it
        nothing_happened
    }
    against {
        stopped
        traced
        configured_anew
        taken_off
        silenced
        busy_is_not_silenced
        writes_into_memory
        maps_opened
    }
    restart {
        killed_in_mid_load
        stopped_and_started
    }
    history {
        used_says_yes_and_never_without_a_use
        what_nobody_used_is_not_used
        what_a_client_has_survives_a_kill
        killed_again_and_again
        a_decoy_that_is_read_is_a_finding
    }
    sinks {
        every_way_delivers
        receivers_and_agents_come_and_go
        a_response_runs_once_a_finding
    }
    sinks_kafka {
        a_topic_has_all
    }
    sinks_lake {
        a_lake_has_all
    }
    sinks_syslog {
        rsyslog_has_all_by_tls
    }
    sinks_metrics {
        a_collector_receives_counts
    }
    sinks_far {
        a_collector_has_all
        a_stream_has_all
        a_bucket_has_all
    }
    capture {
        of_a_command
        ended_by_a_signal
        killed_and_finished
        of_an_image
        report_of_an_agent
    }
    leaks {
        nothing_planted_is_kept
        named_after_what_is_in_it
        load_leaves_nothing
        rings_are_searched
        recording_replays_byte_by_byte
    }
    bad_input {
        environment_of_3_mb
        elf_that_lies
        odd_proc_entries
        escape_sequences_are_escaped
        odd_files_in_watched_places
        few_file_descriptors
        too_little_to_start
        ring_that_overflows
        environments_that_cannot_be_read
    }
    bad_places {
        unknown_key_in_the_configuration
        file_in_place_of_the_socket
        without_root
        without_btf
        in_a_pid_namespace
    }
    rights {
        each_right_costs_what_doctor_says
    }
    cli {
        watch_without_an_agent
        second_agent
        trace_exit_statuses
        trace_leaves_the_streams_alone
        trace_shows_events
        trace_follows_descendants
        trace_follows_forty_generations
        trace_of_a_short_command
        watch_shows_the_events
        watch_begins_with_what_was
        reading_the_events_makes_none
        doctor_names_every_signal
        own_doings_are_no_uses
        doctor_names_the_better_tier
        demo_shows_a_send
        classify_answers_line_by_line
    }
    containers {
        a_token_in_the_environment
        files_have_the_containers_paths
        a_program_that_is_not_of_the_image
    }
    containers_cri {
        pods_have_names_by_the_runtime
    }
    grpc {
        health_and_reflection
        the_stock_python_client_connects
        filters_on_the_server
        events_of_before
        slow_client
    }
    exchange {
        an_inventory_in_forms_of_others
        findings_in_forms_of_others
    }
    schema {
        the_standard_style
        nothing_breaks_clients
    }
    elsewhere {
        asked_from_another_host
        pods_have_names
        pods_have_names_by_the_kubelet
        the_chart_holds
    }
}
