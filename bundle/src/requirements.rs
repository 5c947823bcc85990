//! What an edge must be able to do to apply a bundle correctly. An edge that does not know a requirement rejects the bundle
//! and keeps the one it has, until that is stale. An edge of a version without this kind of object rejects it too.
//!
//! ```text
//!  1  bits: 1, scopes and names of holders of other issuers
//! ```

use crate::codec::{Malformed, Reader};

/// The requirements of a bundle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requirements(u8);

impl Requirements {
    /// Watermarks of issuers, clients, sessions and tokens of other issuers are checked, and subjects of other issuers are
    /// named by [`foreign_name`](crate::foreign_name).
    pub const HOLDERS: Self = Self(1);

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Reader(bytes);
        let bits = rest.u8("requirements")?;
        rest.finish()?;
        if bits == Self::HOLDERS.0 {
            Ok(Self(bits))
        } else {
            Err(Malformed("requirements of a later version"))
        }
    }

    /// Encodes the requirements.
    #[cfg(feature = "builder")]
    pub(crate) fn encode(self) -> alloc::vec::Vec<u8> {
        alloc::vec![self.0]
    }
}
