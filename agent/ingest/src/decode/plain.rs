//! Reading a `repr(C)` record out of bytes of any alignment.

use keytrail_abi as abi;

/// Types made of integers and byte arrays only: every bit pattern is a value.
///
/// # Safety
/// Implement only for `repr(C)` types all of whose fields accept any bit pattern.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: `repr(C)`, integers and byte arrays only (see keytrail-abi).
unsafe impl Plain for abi::Header {}
// SAFETY: as above.
unsafe impl Plain for abi::Exec {}
// SAFETY: as above.
unsafe impl Plain for abi::ExecChunk {}
// SAFETY: as above.
unsafe impl Plain for abi::Fork {}
// SAFETY: as above.
unsafe impl Plain for abi::Exit {}
// SAFETY: as above.
unsafe impl Plain for abi::FileAccess {}
// SAFETY: as above.
unsafe impl Plain for abi::FileNew {}
// SAFETY: as above.
unsafe impl Plain for abi::Pipes {}
// SAFETY: as above.
unsafe impl Plain for abi::Connect {}
// SAFETY: as above.
unsafe impl Plain for abi::SockSend {}
// SAFETY: as above.
unsafe impl Plain for abi::TlsWrite {}
// SAFETY: as above.
unsafe impl Plain for abi::MessageSend {}
// SAFETY: as above.
unsafe impl Plain for abi::FdWrite {}
// SAFETY: as above.
unsafe impl Plain for abi::FdTarget {}
// SAFETY: as above.
unsafe impl Plain for abi::ProcessAttach {}

/// Reads `T` from the front, or nothing when there are too few bytes.
pub(super) fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, the read is unaligned, and `Plain` types accept any bit pattern.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
