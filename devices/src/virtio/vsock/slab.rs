//! Places for connections, found again by token.
//!
//! A token names a place and who had it, so that what is told of a descriptor that was closed a
//! moment ago is not taken as of the next one in its place.

/// Bits of a token that name the place.
const PLACE_BITS: u32 = 11;
/// The most places.
pub(super) const MAX_PLACES: usize = 1 << PLACE_BITS;
/// Bits that name who had it. What is above them is the owner of the slab's.
const GENERATION_BITS: u32 = 16;
/// Bits of a token.
pub(super) const TOKEN_BITS: u32 = PLACE_BITS + GENERATION_BITS;

#[derive(Debug)]
struct Place<T> {
    generation: u16,
    entry: Option<T>,
}

/// Up to a limit of entries.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u16>,
    limit: usize,
}

impl<T> Slab<T> {
    /// One of at most `limit` entries, itself at most [`MAX_PLACES`].
    pub(super) fn new(limit: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            limit: limit.min(MAX_PLACES),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Puts an entry in; gives its token, or `None` if there is no room.
    pub(super) fn insert(&mut self, entry: T) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(Place {
                    generation: 0,
                    entry: None,
                });
                u16::try_from(self.places.len() - 1).ok()?
            }
        };
        let place = self.places.get_mut(usize::from(index))?;
        place.entry = Some(entry);
        Some(u32::from(place.generation) << PLACE_BITS | u32::from(index))
    }

    fn place(&mut self, token: u32) -> Option<&mut Place<T>> {
        let index = usize::try_from(token % (1 << PLACE_BITS)).ok()?;
        let place = self.places.get_mut(index)?;
        (u32::from(place.generation) == token >> PLACE_BITS).then_some(place)
    }

    pub(super) fn get(&mut self, token: u32) -> Option<&mut T> {
        self.place(token)?.entry.as_mut()
    }

    pub(super) fn remove(&mut self, token: u32) -> Option<T> {
        let place = self.place(token)?;
        let entry = place.entry.take()?;
        place.generation = place.generation.wrapping_add(1);
        let index = token % (1 << PLACE_BITS);
        self.free.extend(u16::try_from(index).ok());
        Some(entry)
    }

    /// Every entry with its token.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..).zip(&mut self.places).filter_map(|(index, place)| {
            let token = u32::from(place.generation) << PLACE_BITS | index;
            Some((token, place.entry.as_mut()?))
        })
    }

    pub(super) fn tokens(&mut self) -> Vec<u32> {
        self.iter_mut().map(|(token, _)| token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_one_entry_only() {
        let mut slab = Slab::new(2);
        let first = slab.insert('a').expect("room");
        let second = slab.insert('b').expect("room");
        assert_eq!(slab.insert('c'), None);
        assert_eq!(slab.remove(first), Some('a'));
        assert_eq!(slab.remove(first), None);
        let third = slab.insert('c').expect("room");
        assert_ne!(third, first);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get(third), Some(&mut 'c'));
        assert_eq!(slab.get(u32::MAX), None);
        assert_eq!(slab.tokens(), [third, second]);
        assert_eq!(slab.len(), 2);
    }
}
