//! Lists that are read page by page.
//!
//! A cursor is where the next page begins, signed for one owner and one list: a tampered or foreign one is refused
//! rather than guessed at.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    problem::{Code, Problem},
    seal::{DataKey, equal},
};

const MAC_LEN: usize = 16;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Where the next page begins; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// A short list, given whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The items.
    pub data: Vec<T>,
}

/// Signs and checks the cursors of one list.
#[derive(Clone, Copy)]
pub struct Cursors<'k> {
    key: &'k DataKey,
    list: &'static str,
}

impl<'k> Cursors<'k> {
    /// Cursors of `list`, signed with a service key.
    pub fn new(key: &'k DataKey, list: &'static str) -> Cursors<'k> {
        Cursors { key, list }
    }

    /// A cursor for `owner` at `position`.
    pub fn issue(self, owner: Uuid, scope: &str, position: &[u8]) -> String {
        let mac = self.mac(owner, scope, position);
        BASE64_URL_SAFE_NO_PAD.encode([mac.as_slice(), position].concat())
    }

    /// The position that `owner` was given before.
    pub fn read<const N: usize>(self, owner: Uuid, scope: &str, cursor: &str) -> Result<[u8; N], Problem> {
        let refused = || Problem::new(Code::InvalidCursor, "This cursor was not given to you for this list.");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let (mac, position) = bytes.split_at_checked(MAC_LEN).ok_or_else(refused)?;
        if !equal(mac, &self.mac(owner, scope, position)) {
            return Err(refused());
        }
        position.try_into().map_err(|_| refused())
    }

    fn mac(self, owner: Uuid, scope: &str, position: &[u8]) -> Vec<u8> {
        let len = u32::try_from(scope.len()).unwrap_or(u32::MAX).to_be_bytes();
        let signed =
            [owner.as_bytes(), self.list.as_bytes(), b"\0", &len, scope.as_bytes(), position].concat();
        self.key.mac("cursor", &signed).into_iter().take(MAC_LEN).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::random::SystemRandom;

    #[test]
    fn a_cursor_is_bound_to_its_owner_list_and_scope() {
        let key = DataKey::generate("service/hashes".into(), Uuid::nil(), &SystemRandom);
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let messages = Cursors::new(&key, "messages");
        let cursor = messages.issue(ann, "c1", &7i64.to_be_bytes());

        assert_eq!(messages.read(ann, "c1", &cursor).unwrap(), 7i64.to_be_bytes());
        assert!(messages.read::<8>(bob, "c1", &cursor).is_err());
        assert!(messages.read::<8>(ann, "c2", &cursor).is_err());
        assert!(messages.read::<9>(ann, "c1", &cursor).is_err());
        assert!(Cursors::new(&key, "conversations").read::<8>(ann, "c1", &cursor).is_err());
        for forged in ["", "AAAA", "****", &cursor[1..], &format!("{cursor}A")] {
            assert!(messages.read::<8>(ann, "c1", forged).is_err(), "{forged}");
        }
    }
}
