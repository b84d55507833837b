//! Zstandard frames (RFC 8878), one after the other.

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress};
use std::io::{self, Read, Write};

/// Every frame begins so.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest window that is accepted: what the usual levels of zstd use. A decoder keeps as much.
const MAX_WINDOW: u64 = 8 << 20;

/// A last block of no bytes.
const LAST: [u8; 3] = [1, 0, 0];

/// Compresses what `from` gives into one frame.
///
/// # Errors
/// What either stream gives.
pub fn frame(from: impl Read, to: impl Write) -> io::Result<()> {
    // The encoder has no way to fail but a panic: it sees streams that do not, and is asked afterwards.
    let (mut source, mut drain) = (Source(from, None), Drain(to, None));
    compress(&mut source, &mut drain, CompressionLevel::Fastest);
    match source.1.or(drain.1) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Source<R>(R, Option<io::Error>);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.1.is_some() || to.is_empty() {
            return Ok(0);
        }
        loop {
            match self.0.read(to) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.1 = Some(e);
                    return Ok(0);
                }
                other => return other,
            }
        }
    }
}

struct Drain<W>(W, Option<io::Error>);

impl<W: Write> Write for Drain<W> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        if self.1.is_none()
            && let Err(e) = self.0.write_all(from)
        {
            self.1 = Some(e);
        }
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decompresses the frame at the beginning of `bytes`, piece by piece into `each`, as long as that says that it wants more;
/// returns how many bytes the frame has, or as many as were inspected.
///
/// # Errors
/// What is wrong, as the end of a sentence, and at which byte of `bytes` the part begins that is.
pub fn read_frame(
    bytes: &[u8],
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<usize, (usize, String)> {
    let mut rest = bytes;
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_WINDOW);
    decoder
        .reset(&mut rest)
        .map_err(|e| (0, format!("it is no zstd frame ({e})")))?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let at = bytes.len() - rest.len();
        let mut broken = None;
        if !decoder.is_finished()
            && let Err(e) = decoder.decode_blocks(&mut rest, BlockDecodingStrategy::UptoBlocks(1))
        {
            broken = Some((at, format!("it cannot be decompressed ({e})")));
            // Makes the decoder give what it keeps for later references: that was decoded before the damage.
            let _ = decoder.decode_blocks(&mut LAST.as_slice(), BlockDecodingStrategy::All);
        }
        while let Ok(n @ 1..) = decoder.read(&mut piece) {
            if !each(piece.get(..n).unwrap_or_default()) {
                return Ok(bytes.len() - rest.len());
            }
        }
        if let Some(broken) = broken {
            return Err(broken);
        }
        if decoder.is_finished() && decoder.can_collect() == 0 {
            return Ok(bytes.len() - rest.len());
        }
    }
}

/// Where the next frame may begin, at `from` or later.
pub fn next(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(MAGIC.len())
        .position(|window| window == MAGIC)
        .map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other() {
        let first: Vec<u8> = (0..300_000u32)
            .flat_map(|n| (n.wrapping_mul(n) / 7).to_le_bytes())
            .collect();
        let mut bytes = Vec::new();
        frame(first.as_slice(), &mut bytes).unwrap();
        let length = bytes.len();
        frame(b"second".as_slice(), &mut bytes).unwrap();
        frame(b"".as_slice(), &mut bytes).unwrap();
        let mut got = Vec::new();
        let read = read_frame(&bytes, |piece| {
            got.extend_from_slice(piece);
            true
        })
        .unwrap();
        assert_eq!(read, length);
        assert!(got == first);
        let mut got = Vec::new();
        let second = read_frame(&bytes[read..], |piece| {
            got.extend_from_slice(piece);
            true
        })
        .unwrap();
        assert_eq!(got, b"second");
        assert_eq!(
            read_frame(&bytes[read + second..], |_| panic!("it is empty")).unwrap() + read + second,
            bytes.len()
        );
        assert_eq!(next(&bytes, 1), Some(length));
    }

    #[test]
    fn a_stream_that_fails_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = frame(b"x".as_slice(), Full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_is_cut_or_no_frame_says_where() {
        let mut bytes = Vec::new();
        frame([7; 400_000].as_slice(), &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            let (at, _) = read_frame(&bytes[..cut], |_| true).unwrap_err();
            assert!(at <= cut);
        }
        assert_eq!(read_frame(b"no frame at all", |_| true).unwrap_err().0, 0);
    }
}
