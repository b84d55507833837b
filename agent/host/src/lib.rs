//! The few facts about this machine that several stages ask for: clocks, device numbers, mount tables. Below all
//! stages: it names none of them.

pub mod areas;
pub mod changes;
pub mod clock;
pub mod fanotify;
pub mod git_index;
pub mod mounts;
pub mod own;
pub mod priority;
pub mod proc_reads;
pub mod procfs;
pub mod verdict;
pub mod writes;

/// The kernel's own encoding of a device number (`MKDEV`: `major << 20 | minor`) from user space's `st_dev`, whose
/// encoding (`makedev(3)`) is glibc's.
#[must_use]
pub fn kernel_device(st_dev: u64) -> u32 {
    rustix::fs::major(st_dev) << 20 | rustix::fs::minor(st_dev) & 0xf_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_recoded() {
        // The encodings of user space: 12 bits of major in the middle, minor around it.
        assert_eq!(kernel_device(rustix::fs::makedev(254, 0)), 254 << 20);
        assert_eq!(
            kernel_device(rustix::fs::makedev(8, 0x12345)),
            8 << 20 | 0x12345
        );
    }
}
