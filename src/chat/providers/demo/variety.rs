//! Variety without chance: a choice that follows from what was said, so that a reply can be had again.

use super::memory;
use super::voices::Lines;
use crate::chat::provider::Prompt;

/// What all choices of a reply follow from: the newest message and the number of messages.
pub(super) fn seed(prompt: &Prompt) -> u64 {
    hash(&memory::newest(prompt), u64::try_from(prompt.messages.len()).unwrap_or(u64::MAX))
}

/// Mixes a text and a number into a stable number.
pub(super) fn hash(text: &str, number: u64) -> u64 {
    fnv1a(text.bytes().chain(number.to_le_bytes()))
}

/// The lines of a list, each of them once, beginning with the one that the seed points at.
pub(super) fn in_order(lines: Lines, seed: u64) -> impl Iterator<Item = &'static str> {
    // The list's first line is mixed in, so that two lists of one length do not move in step.
    let number = hash(lines.first().copied().unwrap_or_default(), seed);
    let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    let start = usize::try_from(number.checked_rem(length).unwrap_or_default()).unwrap_or_default();
    lines.iter().copied().cycle().skip(start).take(lines.len())
}

/// The 64-bit FNV-1a hash: small, fast, the same on every machine, and no use against an enemy.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a("".bytes()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a".bytes()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar".bytes()), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn every_line_comes_once_and_every_line_can_come_first() {
        let lines: Lines = &["a", "b", "c"];
        let mut firsts: Vec<_> = (0..50).filter_map(|seed| in_order(lines, seed).next()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts, lines);

        let mut all: Vec<_> = in_order(lines, 7).collect();
        all.sort_unstable();
        assert_eq!(all, lines);
        assert_eq!(in_order(&[], 7).next(), None);
    }
}
