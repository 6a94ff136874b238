//! The items of one group of keys in memory, and which of them goes when there is no more room.
//!
//! It evicts as SIEVE does (Zhang et al., NSDI 2024): items stand in the order in which they came; a hand
//! walks from the oldest to the newest, spares what has been asked for since it last came by, and takes the
//! first that has not. Unlike a cache that evicts on its own time, this one tells what it gives up under the
//! very lock that the key's requests take: what goes to disk is never older than what anybody has seen.

use std::collections::HashMap;

use bytes::Bytes;
use slab::Slab;

use super::item::Item;

/// No item.
const NONE: usize = usize::MAX;

/// Places looked at in one sweep.
const SWEPT: usize = 2;

/// A group of keys.
#[derive(Debug)]
pub(super) struct Shelf {
    places: HashMap<Bytes, usize, foldhash::fast::RandomState>,
    nodes: Slab<Node>,
    newest: usize,
    oldest: usize,
    /// The next to be looked at.
    hand: usize,
    /// The last place that was swept.
    broom: usize,
    held_len: u64,
}

#[derive(Debug)]
struct Node {
    key: Bytes,
    item: Item,
    newer: usize,
    older: usize,
    is_visited: bool,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            places: HashMap::default(),
            nodes: Slab::new(),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
            broom: 0,
            held_len: 0,
        }
    }
}

impl Shelf {
    /// An item. The value may be changed only by one of the same length.
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Item> {
        let node = self.nodes.get_mut(*self.places.get(key)?)?;
        node.is_visited = true;
        Some(&mut node.item)
    }

    /// An item, without its being spared for that.
    pub(super) fn peek(&self, key: &[u8]) -> Option<&Item> {
        Some(&self.nodes.get(*self.places.get(key)?)?.item)
    }

    /// Puts an item in, or in another's place.
    pub(super) fn put(&mut self, key: &[u8], item: Item) {
        let new_len = item.held_len(key.len());
        if let Some(node) = self.places.get(key).and_then(|place| self.nodes.get_mut(*place)) {
            self.held_len = self.held_len - node.item.held_len(key.len()) + new_len;
            node.item = item;
            node.is_visited = true;
            return;
        }
        let key = Bytes::copy_from_slice(key);
        let node = Node { key: key.clone(), item, newer: NONE, older: self.newest, is_visited: false };
        let place = self.nodes.insert(node);
        match self.nodes.get_mut(self.newest) {
            Some(newest) => newest.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
        self.held_len += new_len;
        self.places.insert(key, place);
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Item> {
        let place = self.places.remove(key)?;
        self.unlink(place).map(|node| node.item)
    }

    /// Gives up the item that is missed least.
    pub(super) fn evict(&mut self) -> Option<(Bytes, Item)> {
        loop {
            let place = if self.hand == NONE { self.oldest } else { self.hand };
            let node = self.nodes.get_mut(place)?;
            if node.is_visited {
                node.is_visited = false;
                self.hand = node.newer;
                continue;
            }
            let node = self.unlink(place)?;
            self.places.remove(&node.key);
            return Some((node.key, node.item));
        }
    }

    /// Looks at the next few items and drops those that are not `wanted`: what has expired goes without
    /// anybody's asking for it.
    pub(super) fn sweep(&mut self, wanted: impl Fn(&Item) -> bool) {
        for _ in 0..SWEPT {
            self.broom = if self.broom + 1 < self.nodes.capacity() { self.broom + 1 } else { 0 };
            let Some(node) = self.nodes.get(self.broom) else { continue };
            if !wanted(&node.item) {
                let key = node.key.clone();
                self.remove(&key);
            }
        }
    }

    /// Every item.
    pub(super) fn items_mut(&mut self) -> impl Iterator<Item = (&Bytes, &mut Item)> {
        self.nodes.iter_mut().map(|(_, node)| (&node.key, &mut node.item))
    }

    /// Bytes in use.
    pub(super) fn held_len(&self) -> u64 {
        self.held_len
    }

    /// Items there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn unlink(&mut self, place: usize) -> Option<Node> {
        let node = self.nodes.try_remove(place)?;
        match self.nodes.get_mut(node.newer) {
            Some(newer) => newer.older = node.older,
            None => self.newest = node.older,
        }
        match self.nodes.get_mut(node.older) {
            Some(older) => older.newer = node.newer,
            None => self.oldest = node.newer,
        }
        if self.hand == place {
            self.hand = node.newer;
        }
        self.held_len -= node.item.held_len(node.key.len());
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: &'static str) -> Item {
        Item::new(Bytes::from_static(value.as_bytes()), 0, 1, 0, 0)
    }

    fn shelf(keys: &[&str]) -> Shelf {
        let mut shelf = Shelf::default();
        keys.iter().for_each(|key| shelf.put(key.as_bytes(), item("v")));
        shelf
    }

    fn evicted(shelf: &mut Shelf) -> String {
        shelf.evict().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).unwrap_or_default()
    }

    #[test]
    fn the_oldest_that_nobody_asked_for_goes_first() {
        let mut shelf = shelf(&["a", "b", "c", "d"]);
        shelf.get_mut(b"a").unwrap();
        shelf.get_mut(b"c").unwrap();
        assert_eq!(evicted(&mut shelf), "b", "a was spared");
        assert_eq!(evicted(&mut shelf), "d", "c was spared, the hand goes on");
        assert_eq!(evicted(&mut shelf), "a", "and begins anew");
        assert_eq!(evicted(&mut shelf), "c");
        assert_eq!(evicted(&mut shelf), "");
        assert_eq!((shelf.len(), shelf.held_len()), (0, 0));
    }

    #[test]
    fn lengths_are_kept_through_everything() {
        let mut shelf = shelf(&["a", "b", "c"]);
        shelf.put(b"b", item("a longer value"));
        shelf.remove(b"a").unwrap();
        assert_eq!(shelf.remove(b"a"), None);
        let expected = item("a longer value").held_len(1) + item("v").held_len(1);
        assert_eq!(shelf.held_len(), expected);
        for _ in 0..8 {
            shelf.sweep(|item| item.value.len() > 1);
        }
        assert_eq!((shelf.len(), shelf.held_len()), (1, item("a longer value").held_len(1)));
        assert_eq!(evicted(&mut shelf), "b");
    }

    #[test]
    fn taking_away_what_the_hand_points_at_moves_it_on() {
        let mut shelf = shelf(&["a", "b", "c"]);
        shelf.get_mut(b"a").unwrap();
        assert_eq!(evicted(&mut shelf), "b");
        shelf.remove(b"c").unwrap();
        shelf.put(b"d", item("v"));
        assert_eq!(evicted(&mut shelf), "a");
        assert_eq!(evicted(&mut shelf), "d");
    }
}
