//! What tells a form from what merely looks like it.

use super::forms::Transform;
use ring::hmac;
use zeroize::Zeroizing;

/// The HMAC of a form in its canonical spelling.
pub struct Digest {
    context: hmac::Context,
    fold: bool,
}

impl Digest {
    pub fn new(key: &hmac::Key, transform: Transform) -> Self {
        let mut context = hmac::Context::with_key(key);
        context.update(&[transform as u8]);
        Self {
            context,
            fold: transform == Transform::Hex,
        }
    }

    pub fn edge(&mut self, value: u8) {
        self.context.update(&[value]);
    }

    pub fn update(&mut self, bytes: &[u8]) {
        if !self.fold {
            return self.context.update(bytes);
        }
        let mut lower = Zeroizing::new([0; 64]);
        for chunk in bytes.chunks(lower.len()) {
            let lower = &mut lower[..chunk.len()];
            lower.copy_from_slice(chunk);
            lower.make_ascii_lowercase();
            self.context.update(lower);
        }
    }

    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.context.sign().as_ref());
        out
    }
}
