//! A copy of the picture, in tiles that say when they last changed.

use crate::{Screen, Size};

/// Pixels of a tile in each direction; those at the right and lower edge have fewer.
pub const TILE: u16 = 64;

/// The copy.
#[derive(Debug, Clone)]
pub struct Canvas {
    size: Size,
    /// Line after line. Empty until it is first refreshed: black.
    pixels: Vec<u32>,
    /// For each tile, the refresh that found it changed.
    changed: Vec<u64>,
    refreshes: u64,
    line: Vec<u32>,
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// From the left.
    pub x: u16,
    /// From the top.
    pub y: u16,
    /// Pixels of a line.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

impl Area {
    /// Whether they share a pixel.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let apart = |start: u16, length: u16, other: u16, other_length: u16| {
            u32::from(start) + u32::from(length) <= u32::from(other)
                || u32::from(other) + u32::from(other_length) <= u32::from(start)
        };
        let empty = |area: &Self| area.width == 0 || area.height == 0;
        !(empty(self)
            || empty(other)
            || apart(self.x, self.width, other.x, other.width)
            || apart(self.y, self.height, other.y, other.height))
    }
}

/// The tiles of a picture of that size, by number: line after line.
pub(crate) fn tiles(size: Size) -> impl Iterator<Item = Area> {
    let part = |start: u16, end: u16| TILE.min(end - start);
    (0..size.height).step_by(TILE.into()).flat_map(move |y| {
        (0..size.width).step_by(TILE.into()).map(move |x| Area {
            x,
            y,
            width: part(x, size.width),
            height: part(y, size.height),
        })
    })
}

/// How many there are in a line of them.
fn columns(size: Size) -> usize {
    usize::from(size.width.div_ceil(TILE))
}

impl Default for Canvas {
    fn default() -> Self {
        Self {
            size: Size::BLANK,
            pixels: Vec::new(),
            changed: Vec::new(),
            refreshes: 0,
            line: Vec::new(),
        }
    }
}

impl Canvas {
    /// The size of the picture when it was last refreshed.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Whether it has a picture to show, blank or not.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        !self.pixels.is_empty()
    }

    /// Takes over what `screen` shows now; whether anything has changed, the size included.
    pub fn refresh(&mut self, screen: &mut dyn Screen) -> bool {
        let picture = screen.look();
        let size = picture.unwrap_or(Size::BLANK);
        self.refreshes += 1;
        let width = usize::from(size.width);
        let mut any = false;
        if size != self.size || self.pixels.is_empty() {
            self.size = size;
            self.pixels = vec![0; width * usize::from(size.height)];
            let tiles = columns(size) * usize::from(size.height.div_ceil(TILE));
            self.changed = vec![self.refreshes; tiles];
            any = true;
        }
        self.line.clear();
        self.line.resize(width, 0);
        let tile_lines = self.changed.chunks_mut(columns(size));
        let pixel_lines = self.pixels.chunks_mut(width * usize::from(TILE));
        let mut line = 0;
        for (tiles, pixels) in tile_lines.zip(pixel_lines) {
            for known in pixels.chunks_mut(width) {
                if picture.is_some() {
                    screen.read_line(line, &mut self.line);
                }
                line += 1;
                if known == self.line {
                    continue;
                }
                let parts = known.chunks_mut(TILE.into());
                let seen = self.line.chunks(TILE.into());
                for ((known, seen), changed) in parts.zip(seen).zip(&mut *tiles) {
                    if known != seen {
                        known.copy_from_slice(seen);
                        *changed = self.refreshes;
                        any = true;
                    }
                }
            }
        }
        any
    }

    /// When the tile that begins at that pixel last changed: counts up, and is never 0. What is not in the picture
    /// counts as changed when the picture was last looked at for the first time.
    #[must_use]
    pub fn changed(&self, x: u16, y: u16) -> u64 {
        if x >= self.size.width {
            return 1;
        }
        let number = usize::from(y / TILE) * columns(self.size) + usize::from(x / TILE);
        self.changed.get(number).copied().unwrap_or(1)
    }

    /// Puts the pixels of `area` into `pixels`, line after line; what is not in the picture is black.
    pub fn copy(&self, area: &Area, pixels: &mut Vec<u32>) {
        pixels.clear();
        let width = usize::from(self.size.width);
        let wanted = usize::from(area.width);
        for line in usize::from(area.y)..usize::from(area.y) + usize::from(area.height) {
            let end = pixels.len() + wanted;
            let start = usize::from(area.x).min(width);
            let known = self.pixels.get(line * width + start..(line + 1) * width);
            let known = known.unwrap_or_default();
            pixels.extend(known.iter().take(wanted));
            pixels.resize(end, 0);
        }
    }

    /// The lines of the picture from the top.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u32]> {
        self.pixels.chunks(self.size.width.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Picture;

    #[test]
    fn what_has_changed_is_known_by_the_tile() {
        let picture = Picture::new(130, 70);
        let mut canvas = Canvas::default();
        assert!(canvas.refresh(&mut picture.screen()));
        assert!(!canvas.refresh(&mut picture.screen()));
        let first = canvas.changed(0, 0);
        picture.set(129, 69, 0x12_3456);
        assert!(canvas.refresh(&mut picture.screen()));
        assert!(canvas.changed(128, 64) > first);
        for (x, y) in [(0, 0), (64, 0), (128, 0), (0, 64), (64, 64)] {
            assert_eq!(canvas.changed(x, y), first);
        }
        let mut pixels = Vec::new();
        let area = Area {
            x: 128,
            y: 69,
            width: 4,
            height: 2,
        };
        canvas.copy(&area, &mut pixels);
        assert_eq!(pixels, [0, 0x12_3456, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn another_size_is_another_picture_and_none_is_black() {
        let picture = Picture::new(64, 64);
        picture.set(0, 0, 7);
        let mut canvas = Canvas::default();
        canvas.refresh(&mut picture.screen());
        let before = canvas.changed(0, 0);
        picture.resize(128, 64);
        assert!(canvas.refresh(&mut picture.screen()));
        assert_eq!(canvas.size(), Size::new(128, 64).unwrap());
        assert!(canvas.changed(0, 0) > before);
        picture.hide();
        assert!(canvas.refresh(&mut picture.screen()));
        assert_eq!(canvas.size(), Size::BLANK);
        assert!(canvas.lines().flatten().all(|pixel| *pixel == 0));
        assert_eq!(canvas.lines().count(), 480);
        assert!(!canvas.refresh(&mut picture.screen()));
    }

    #[test]
    fn tiles_cover_a_picture_once() {
        let size = Size::new(130, 65).unwrap();
        let all: Vec<_> = tiles(size).collect();
        assert_eq!(all.len(), 6);
        let pixels = |area: &Area| u32::from(area.width) * u32::from(area.height);
        assert_eq!(all.iter().map(pixels).sum::<u32>(), 130 * 65);
        assert_eq!(
            (all[5].x, all[5].y, all[5].width, all[5].height),
            (128, 64, 2, 1)
        );
        for (number, area) in all.iter().enumerate() {
            let met = all.iter().filter(|other| area.meets(other)).count();
            assert_eq!(met, 1, "{number}");
        }
    }
}
