//! What firmware is told: items by key, some of them files by name.

use std::collections::BTreeMap;
use std::fmt;

/// Keys of items that are no files, as firmware knows them by number.
pub mod key {
    /// Four bytes that say that there is a device.
    pub const SIGNATURE: u16 = 0x00;
    /// What the device can do, 32 bits.
    pub const ID: u16 = 0x01;
    /// The machine's UUID, 16 bytes.
    pub const UUID: u16 = 0x02;
    /// vCPUs that are there, 16 bits.
    pub const CPUS: u16 = 0x05;
    /// Whether a boot menu is shown, 16 bits.
    pub const BOOT_MENU: u16 = 0x0e;
    /// vCPUs that there can be, 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The directory of files.
    pub const DIRECTORY: u16 = 0x19;
    /// The first file.
    pub const FIRST_FILE: u16 = 0x20;
    /// Whether the timer's interrupt is at pin 2 of the I/O APIC, 32 bits (x86).
    pub const TIMER_AT_PIN_2: u16 = 0x8002;
}

/// The longest name of a file, its NUL not counted.
pub const MAX_NAME: usize = 55;
/// Bytes of a directory's entry: length, key, two of nothing, name.
const ENTRY_LEN: usize = 64;
/// The most files: what key numbers leave room for before those of the architecture.
const MAX_FILES: usize = 0x1000;

/// Items can be had by ports, and by DMA.
const ID: u32 = 0b11;

/// An item that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ItemsError {
    /// No name, a name too long for the directory, one with a NUL, or one that there is already.
    #[error("firmware cannot have a file of that name")]
    Name,
    /// More files than keys, or one of more than 4 GiB.
    #[error("firmware has no room for the file")]
    Room,
}

/// Makes an item's bytes when it is selected, for one that depends on what the guest has done by then.
///
/// Called on a vCPU thread with the device's lock held.
pub trait Render: Send {
    /// Fills `bytes`, whose length is always the one that the item was made with.
    fn render(&self, bytes: &mut [u8]);
}

struct Item {
    bytes: Vec<u8>,
    live: Option<Box<dyn Render>>,
}

/// All items.
#[derive(Default)]
pub struct Items {
    items: BTreeMap<u16, Item>,
    /// Files by name.
    files: BTreeMap<String, Item>,
}

impl Items {
    /// Those that every device has.
    #[must_use]
    pub fn new() -> Self {
        let mut items = Self::default();
        items.add(key::SIGNATURE, b"QEMU".to_vec());
        items.add(key::ID, ID.to_le_bytes().to_vec());
        items.list_files();
        items
    }

    /// Adds an item by its key, or replaces it. For keys of [`key`]: those of files are given by the
    /// directory.
    pub fn add(&mut self, key: u16, bytes: Vec<u8>) {
        self.items.insert(key, Item { bytes, live: None });
    }

    /// Adds a file.
    ///
    /// # Errors
    /// [`ItemsError`].
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), ItemsError> {
        self.put(name, Item { bytes, live: None })
    }

    /// Adds a file that `live` makes each time it is selected; it is `bytes` before.
    ///
    /// # Errors
    /// [`ItemsError`].
    pub fn add_live_file(
        &mut self,
        name: &str,
        bytes: Vec<u8>,
        live: Box<dyn Render>,
    ) -> Result<(), ItemsError> {
        let live = Some(live);
        self.put(name, Item { bytes, live })
    }

    fn put(&mut self, name: &str, item: Item) -> Result<(), ItemsError> {
        let sound = (1..=MAX_NAME).contains(&name.len()) && !name.contains('\0');
        if !sound || self.files.contains_key(name) {
            return Err(ItemsError::Name);
        }
        if self.files.len() >= MAX_FILES || u32::try_from(item.bytes.len()).is_err() {
            return Err(ItemsError::Room);
        }
        self.files.insert(name.to_owned(), item);
        self.list_files();
        Ok(())
    }

    /// Makes the directory: files have rising keys in the order of their names.
    fn list_files(&mut self) {
        let mut directory = Vec::with_capacity(4 + self.files.len() * ENTRY_LEN);
        let count = u32::try_from(self.files.len()).unwrap_or(0);
        directory.extend_from_slice(&count.to_be_bytes());
        for (key, (name, item)) in (key::FIRST_FILE..).zip(&self.files) {
            let len = u32::try_from(item.bytes.len()).unwrap_or(u32::MAX);
            let end = directory.len() + ENTRY_LEN;
            directory.extend_from_slice(&len.to_be_bytes());
            directory.extend_from_slice(&key.to_be_bytes());
            directory.extend_from_slice(&[0; 2]);
            directory.extend_from_slice(name.as_bytes());
            directory.resize(end, 0);
        }
        self.add(key::DIRECTORY, directory);
    }

    fn item_mut(&mut self, key: u16) -> Option<&mut Item> {
        match Self::file_index(key) {
            Some(index) if index < self.files.len() => self.files.values_mut().nth(index),
            _ => self.items.get_mut(&key),
        }
    }

    fn file_index(key: u16) -> Option<usize> {
        key.checked_sub(key::FIRST_FILE).map(usize::from)
    }

    /// Makes the item of that key anew, if it is of those that are made.
    pub(super) fn render(&mut self, key: u16) {
        if let Some(item) = self.item_mut(key)
            && let Some(live) = &item.live
        {
            live.render(&mut item.bytes);
        }
    }

    /// The item of that key; nothing if there is none.
    pub(super) fn bytes(&self, key: u16) -> &[u8] {
        let item = match Self::file_index(key) {
            Some(index) if index < self.files.len() => self.files.values().nth(index),
            _ => self.items.get(&key),
        };
        item.map(|item| item.bytes.as_slice()).unwrap_or_default()
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items")
            .field("items", &self.items.keys())
            .field("files", &self.files.keys())
            .finish()
    }
}
