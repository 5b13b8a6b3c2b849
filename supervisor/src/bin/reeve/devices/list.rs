//! A list with commas, taken apart key by key: what is left at the end is none of the device's.

use std::fmt::Display;
use std::str::FromStr;

use reeve_ipc::spec::PciSlot;

/// The parts that have not been taken yet.
pub(super) struct List {
    parts: Vec<String>,
}

impl List {
    /// Splits at commas; two of them are one that belongs to the text.
    pub(super) fn read(text: &str) -> Self {
        let mut parts = vec![String::new()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let ends = c == ',' && chars.next_if_eq(&',').is_none();
            match parts.last_mut() {
                Some(part) if !ends => part.push(c),
                _ => parts.push(String::new()),
            }
        }
        Self { parts }
    }

    /// The first part, which needs no key.
    pub(super) fn subject(&mut self, key: &str) -> Result<String, String> {
        let first = match self.parts.is_empty() {
            true => String::new(),
            false => self.parts.remove(0),
        };
        let subject = first
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix('='))
            .map_or_else(|| first.clone(), str::to_owned);
        if subject.is_empty() {
            return Err(format!("it begins with a {key}"));
        }
        Ok(subject)
    }

    fn take_text(&mut self, key: &str) -> Result<Option<String>, String> {
        let value = |part: &String| {
            let rest = part.strip_prefix(key)?.strip_prefix('=')?;
            Some(rest.to_owned())
        };
        let found: Vec<String> = self.parts.iter().filter_map(value).collect();
        self.parts.retain(|part| value(part).is_none());
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            _ => Err(format!("{key} is given twice")),
        }
    }

    /// The value of a key, where it is given.
    pub(super) fn take<T>(&mut self, key: &str) -> Result<Option<T>, String>
    where
        T: FromStr<Err: Display>,
    {
        self.take_text(key)?
            .map(|text| text.parse().map_err(|error| format!("{key}: {error}")))
            .transpose()
    }

    /// Each value of a key, which may be given again.
    pub(super) fn all<T>(&mut self, key: &str) -> Result<Vec<T>, String>
    where
        T: FromStr<Err: Display>,
    {
        let value = |part: &String| {
            let rest = part.strip_prefix(key)?.strip_prefix('=')?;
            Some(rest.to_owned())
        };
        let found: Vec<String> = self.parts.iter().filter_map(value).collect();
        self.parts.retain(|part| value(part).is_none());
        let parsed = found.into_iter().map(|text| text.parse());
        parsed
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{key}: {error}"))
    }

    /// Puts the value of a key in its place, where it is given.
    pub(super) fn set<T>(&mut self, key: &str, place: &mut T) -> Result<(), String>
    where
        T: FromStr<Err: Display>,
    {
        if let Some(value) = self.take(key)? {
            *place = value;
        }
        Ok(())
    }

    /// Whether a word stands alone.
    pub(super) fn flag(&mut self, word: &str) -> bool {
        let before = self.parts.len();
        self.parts.retain(|part| part != word);
        self.parts.len() < before
    }

    /// A place on the bus.
    pub(super) fn address(&mut self) -> Result<Option<PciSlot>, String> {
        let number: Option<u8> = self.take("address")?;
        let slot = number.map(PciSlot::try_from).transpose();
        slot.map_err(|error| error.to_string())
    }

    /// Each value of `first` with the value of `second` that follows it.
    pub(super) fn pairs<T>(&mut self, first: &str, second: &str) -> Result<Vec<(String, T)>, String>
    where
        T: FromStr<Err: Display>,
    {
        let value = |part: &str, key: &str| {
            let rest = part.strip_prefix(key)?.strip_prefix('=')?;
            Some(rest.to_owned())
        };
        let mut pairs = Vec::new();
        let mut rest = Vec::new();
        let mut parts = std::mem::take(&mut self.parts).into_iter();
        while let Some(part) = parts.next() {
            let Some(of_first) = value(&part, first) else {
                rest.push(part);
                continue;
            };
            let of_second = parts.next().and_then(|part| value(&part, second));
            let of_second =
                of_second.ok_or_else(|| format!("behind {first}=... comes {second}=..."))?;
            let of_second = of_second
                .parse()
                .map_err(|error| format!("{second}: {error}"))?;
            pairs.push((of_first, of_second));
        }
        self.parts = rest;
        Ok(pairs)
    }

    /// That nothing is left.
    pub(super) fn end(self) -> Result<(), String> {
        match self.parts.first() {
            None => Ok(()),
            Some(part) => Err(format!("'{part}' is nothing that can be said of it")),
        }
    }
}
