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

impl<T> Page<T> {
    /// Cuts a list that was read one item further than its page: the items of the page, and the position of its last one
    /// if more follow. The order stays.
    pub fn cut<P>(mut found: Vec<(T, P)>, limit: i64) -> (Vec<T>, Option<P>) {
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = found.len() > limit;
        found.truncate(limit);
        let (data, mut positions): (Vec<T>, Vec<P>) = found.into_iter().unzip();
        (data, positions.pop().filter(|_| more))
    }
}

/// A short list, given whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The items.
    pub data: Vec<T>,
}

/// Where an item stands in its list, as a cursor carries it. Kinds of position differ in length, so one is never read as
/// another.
pub trait Position: Sized {
    /// The position in bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads it back; `None` if the bytes are no position of this kind.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// A number that orders the list by itself.
impl Position for i64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(i64::from_be_bytes)
    }
}

/// A time, and the id that decides between equal times.
impl Position for (i64, Uuid) {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], self.1.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, id) = bytes.split_first_chunk::<8>()?;
        Some((i64::from_be_bytes(*time), Uuid::from_slice(id).ok()?))
    }
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

    /// A cursor for `owner` that continues after `position`.
    pub fn after(self, owner: Uuid, scope: &str, position: &impl Position) -> String {
        self.issue(owner, scope, &position.to_bytes())
    }

    /// The position that `owner` was given a cursor for.
    pub fn position<P: Position>(self, owner: Uuid, scope: &str, cursor: &str) -> Result<P, Problem> {
        P::from_bytes(&self.open(owner, scope, cursor)?).ok_or_else(refused)
    }

    /// A cursor for `owner` at `position`.
    pub fn issue(self, owner: Uuid, scope: &str, position: &[u8]) -> String {
        let mac = self.mac(owner, scope, position);
        BASE64_URL_SAFE_NO_PAD.encode([mac.as_slice(), position].concat())
    }

    /// The position that `owner` was given before.
    pub fn read<const N: usize>(self, owner: Uuid, scope: &str, cursor: &str) -> Result<[u8; N], Problem> {
        self.open(owner, scope, cursor)?.try_into().map_err(|_| refused())
    }

    fn open(self, owner: Uuid, scope: &str, cursor: &str) -> Result<Vec<u8>, Problem> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let (mac, position) = bytes.split_at_checked(MAC_LEN).ok_or_else(refused)?;
        if equal(mac, &self.mac(owner, scope, position)) { Ok(position.to_vec()) } else { Err(refused()) }
    }

    fn mac(self, owner: Uuid, scope: &str, position: &[u8]) -> Vec<u8> {
        let len = u32::try_from(scope.len()).unwrap_or(u32::MAX).to_be_bytes();
        let signed =
            [owner.as_bytes(), self.list.as_bytes(), b"\0", &len, scope.as_bytes(), position].concat();
        self.key.mac("cursor", &signed).into_iter().take(MAC_LEN).collect()
    }
}

fn refused() -> Problem {
    Problem::new(Code::InvalidCursor, "This cursor was not given to you for this list.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    #[test]
    fn a_page_is_cut_after_its_last_item() {
        let found = |count: i64| (1..=count).map(|n| (format!("item {n}"), n)).collect::<Vec<_>>();
        let cut = |count, limit| {
            let (data, next) = Page::cut(found(count), limit);
            (data.len(), data.last().cloned(), next)
        };
        assert_eq!(cut(0, 3), (0, None, None));
        assert_eq!(cut(2, 3), (2, Some("item 2".into()), None));
        assert_eq!(cut(3, 3), (3, Some("item 3".into()), None), "a full page that is the last one");
        assert_eq!(cut(4, 3), (3, Some("item 3".into()), Some(3)));
        assert_eq!(cut(4, 1), (1, Some("item 1".into()), Some(1)));
        assert_eq!(cut(4, 0), (0, None, None));
        assert_eq!(cut(4, -1), (0, None, None));
    }

    #[test]
    fn positions_of_another_kind_are_refused() {
        let key = DataKey::generate("service/hashes".into(), Uuid::nil(), &SystemRandom);
        let (ann, list) = (Uuid::from_u128(1), Cursors::new(&key, "a list"));
        let number = list.after(ann, "", &7i64);
        let both = list.after(ann, "", &(7i64, Uuid::from_u128(9)));
        assert_eq!(list.position::<i64>(ann, "", &number).unwrap(), 7);
        assert_eq!(list.position::<(i64, Uuid)>(ann, "", &both).unwrap(), (7, Uuid::from_u128(9)));
        for refused in [
            list.position::<(i64, Uuid)>(ann, "", &number).map(drop),
            list.position::<i64>(ann, "", &both).map(drop),
            list.position::<i64>(Uuid::nil(), "", &number).map(drop),
        ] {
            assert_eq!(refused.unwrap_err().code(), Code::InvalidCursor);
        }
    }

    proptest! {
        #[test]
        fn a_position_comes_back_as_it_went(number: i64, id: u128) {
            let (one, two) = (number, (number, Uuid::from_u128(id)));
            prop_assert_eq!(i64::from_bytes(&one.to_bytes()), Some(one));
            prop_assert_eq!(<(i64, Uuid)>::from_bytes(&two.to_bytes()), Some(two));
        }

        #[test]
        fn bytes_of_any_length_are_read_or_refused(bytes: Vec<u8>) {
            prop_assert_eq!(i64::from_bytes(&bytes).is_some(), bytes.len() == 8);
            prop_assert_eq!(<(i64, Uuid)>::from_bytes(&bytes).is_some(), bytes.len() == 24);
        }
    }
}
