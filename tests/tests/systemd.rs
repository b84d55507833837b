//! End to end as a service of systemd, in a booted kernel whose PID 1 it is: `cargo xtask test vm`.

keytrail_tests::cases! {
    systemd {
        the_unit_is_sound
        installed_as_the_readme_says
        as_much_as_outside
        restarted_killed_stopped
        no_call_is_forbidden
        a_service_is_named
    }
    package {
        installed_upgraded_removed_purged
    }
}
