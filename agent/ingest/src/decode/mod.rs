//! Kernel record bytes into typed records. Pure: bytes in, `Result` out, bounds first.
//!
//! The result borrows the ring's memory: a payload is not copied before `wire` has scanned it.

mod plain;

use keytrail_abi as abi;
use plain::read;

/// A record and the variable data behind it.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "lives on the stack for the time of one record; boxing would cost an allocation each"
)]
pub enum Record<'a> {
    Exec(abi::Exec),
    ExecChunk(abi::ExecChunk, &'a [u8]),
    Fork(abi::Fork),
    Exit(abi::Exit),
    File(abi::FileAccess),
    FileNew(abi::FileNew, &'a [u8]),
    Pipes(abi::Pipes),
    Connect(abi::Connect),
    SockSend(abi::SockSend, &'a [u8]),
    TlsWrite(abi::TlsWrite, &'a [u8]),
    Message(abi::MessageSend, &'a [u8]),
    /// What was received, in place of sent.
    Answer(abi::MessageSend, &'a [u8]),
    FdWrite(abi::FdWrite, &'a [u8]),
    FdTarget(abi::FdTarget),
    ProcessAttach(abi::ProcessAttach),
    Canary(abi::Header),
}

impl Record<'_> {
    /// The header every record begins with.
    #[must_use]
    pub fn header(&self) -> &abi::Header {
        match self {
            Self::Exec(r) => &r.header,
            Self::ExecChunk(r, _) => &r.header,
            Self::Fork(r) => &r.header,
            Self::Exit(r) => &r.header,
            Self::File(r) => &r.header,
            Self::FileNew(r, _) => &r.header,
            Self::Pipes(r) => &r.header,
            Self::Connect(r) => &r.header,
            Self::SockSend(r, _) => &r.header,
            Self::TlsWrite(r, _) => &r.header,
            Self::Message(r, _) | Self::Answer(r, _) => &r.header,
            Self::FdWrite(r, _) => &r.header,
            Self::FdTarget(r) => &r.header,
            Self::ProcessAttach(r) => &r.header,
            Self::Canary(h) => h,
        }
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the kind needs.
    #[error("a record of kind {kind} is cut off after {have} bytes")]
    Short { kind: u16, have: usize },
    /// No such kind.
    #[error("record kind {0} is not known")]
    UnknownKind(u16),
    /// A data length that points past the record.
    #[error("a record of kind {kind} claims {claimed} bytes of data and has {have}")]
    Data {
        kind: u16,
        claimed: u32,
        have: usize,
    },
}

/// Decodes one record.
///
/// # Errors
/// When the bytes are shorter than their kind needs, claim more data than there is, or are of an unknown kind.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let header: abi::Header = read(bytes).ok_or(DecodeError::Short {
        kind: 0,
        have: bytes.len(),
    })?;
    let kind = header.kind;
    let short = DecodeError::Short {
        kind,
        have: bytes.len(),
    };
    let data = |size: usize, claimed: u32| -> Result<&[u8], DecodeError> {
        let rest = bytes.get(size..).unwrap_or_default();
        rest.get(..claimed as usize).ok_or(DecodeError::Data {
            kind,
            claimed,
            have: rest.len(),
        })
    };
    Ok(match kind {
        abi::Kind::EXEC => Record::Exec(read(bytes).ok_or(short)?),
        abi::Kind::EXEC_CHUNK => {
            let r: abi::ExecChunk = read(bytes).ok_or(short)?;
            Record::ExecChunk(r, data(size_of::<abi::ExecChunk>(), r.data_len)?)
        }
        abi::Kind::FORK => Record::Fork(read(bytes).ok_or(short)?),
        abi::Kind::EXIT => Record::Exit(read(bytes).ok_or(short)?),
        abi::Kind::FILE_OPEN | abi::Kind::FILE_READ => Record::File(read(bytes).ok_or(short)?),
        abi::Kind::FILE_NEW => {
            let r: abi::FileNew = read(bytes).ok_or(short)?;
            Record::FileNew(r, data(size_of::<abi::FileNew>(), r.data_len)?)
        }
        abi::Kind::PIPES => Record::Pipes(read(bytes).ok_or(short)?),
        abi::Kind::CONNECT => Record::Connect(read(bytes).ok_or(short)?),
        abi::Kind::SOCK_SEND => {
            let r: abi::SockSend = read(bytes).ok_or(short)?;
            Record::SockSend(r, data(size_of::<abi::SockSend>(), r.data_len)?)
        }
        abi::Kind::TLS_WRITE => {
            let r: abi::TlsWrite = read(bytes).ok_or(short)?;
            Record::TlsWrite(r, data(size_of::<abi::TlsWrite>(), r.data_len)?)
        }
        abi::Kind::UNIX_SEND | abi::Kind::UDP_SEND => {
            let r: abi::MessageSend = read(bytes).ok_or(short)?;
            Record::Message(r, data(size_of::<abi::MessageSend>(), r.data_len)?)
        }
        abi::Kind::ANSWER => {
            let r: abi::MessageSend = read(bytes).ok_or(short)?;
            Record::Answer(r, data(size_of::<abi::MessageSend>(), r.data_len)?)
        }
        abi::Kind::FD_WRITE => {
            let r: abi::FdWrite = read(bytes).ok_or(short)?;
            Record::FdWrite(r, data(size_of::<abi::FdWrite>(), r.data_len)?)
        }
        abi::Kind::FD_TARGET => Record::FdTarget(read(bytes).ok_or(short)?),
        abi::Kind::PROCESS_ATTACH => Record::ProcessAttach(read(bytes).ok_or(short)?),
        abi::Kind::CANARY => Record::Canary(header),
        other => return Err(DecodeError::UnknownKind(other)),
    })
}

/// A NUL-padded name as text; bytes that are not UTF-8 are replaced.
#[must_use]
pub fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..1024), kind in 0u16..24) {
            if bytes.len() >= 2 {
                bytes[..2].copy_from_slice(&kind.to_ne_bytes());
            }
            if let Ok(record) = decode(&bytes) {
                prop_assert_eq!(record.header().kind, kind);
            }
        }
    }

    #[test]
    fn a_data_length_beyond_the_record_is_refused() {
        let mut bytes = vec![0u8; size_of::<abi::TlsWrite>() + 4];
        bytes[..2].copy_from_slice(&abi::Kind::TLS_WRITE.to_ne_bytes());
        let at = std::mem::offset_of!(abi::TlsWrite, data_len);
        bytes[at..at + 4].copy_from_slice(&5u32.to_ne_bytes());
        let err = decode(&bytes).expect_err("five bytes are claimed, four are there");
        assert_eq!(
            err,
            DecodeError::Data {
                kind: abi::Kind::TLS_WRITE,
                claimed: 5,
                have: 4
            }
        );
        bytes[at..at + 4].copy_from_slice(&4u32.to_ne_bytes());
        assert!(matches!(decode(&bytes), Ok(Record::TlsWrite(_, data)) if data.len() == 4));
    }
}
