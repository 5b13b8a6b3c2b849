//! A reader of AML that takes it apart by its grammar: every length must fit, every name must be
//! that of something, every method be called with as many arguments as it has.

use std::collections::BTreeMap;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Device,
    /// The bytes of its value.
    Name(Vec<u8>),
    Method {
        arguments: u8,
        body: Vec<u8>,
    },
    Mutex,
    /// A register or a part of a buffer.
    Field,
    Region,
}

/// The objects of a definition block, by their paths, as `\_SB_.PCI0._HID`.
pub(super) type Namespace = BTreeMap<String, Object>;

/// Reads a definition block without its header; all of its methods too.
///
/// # Panics
/// It is not AML, or has terms that we do not use.
pub(super) fn read(block: &[u8]) -> Namespace {
    let mut space = Namespace::new();
    Reader(block).declarations("\\", &mut space);
    for (path, object) in &space {
        if let Object::Method { arguments, body } = object {
            let mut method = Method {
                path,
                arguments: *arguments,
                space: &space,
                own: Vec::new(),
            };
            method.terms(&mut Reader(body));
        }
    }
    space
}

/// The path of `name` in `scope`.
fn join(scope: &str, name: &str) -> String {
    match (scope, name.starts_with('\\')) {
        (_, true) => name.to_owned(),
        ("\\", false) => format!("\\{name}"),
        (_, false) => format!("{scope}.{name}"),
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(count <= self.0.len(), "{count} bytes of {:?}", self.0);
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        head
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    /// The content of a package, whose length comes first.
    fn package(&mut self) -> Reader<'a> {
        let before = self.0.len();
        let lead = self.byte();
        let follow = self.take((lead >> 6).into());
        let low = usize::from(if follow.is_empty() { lead } else { lead & 0xF });
        let length = follow
            .iter()
            .rev()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        let length = low | length << if follow.is_empty() { 6 } else { 4 };
        Reader(self.take(length - (before - self.0.len())))
    }

    fn segment(&mut self) -> String {
        let segment = String::from_utf8(self.take(4).to_vec()).expect("a name");
        let first = segment.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
        let valid = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(first && segment.chars().all(valid), "{segment}");
        segment
    }

    fn name(&mut self) -> String {
        let root = if self.0[0] == b'\\' {
            self.take(1);
            "\\"
        } else {
            ""
        };
        let count = match self.0[0] {
            0x2E => {
                self.take(1);
                2
            }
            0x2F => self.take(2)[1],
            _ => 1,
        };
        let segments: Vec<_> = (0..count).map(|_| self.segment()).collect();
        root.to_owned() + &segments.join(".")
    }

    /// A constant; gives its bytes.
    fn data(&mut self) -> Vec<u8> {
        let all = self.0;
        match self.byte() {
            0x00 | 0x01 => {}
            0x0A => drop(self.take(1)),
            0x0B => drop(self.take(2)),
            0x0C => drop(self.take(4)),
            0x0D => while self.byte() != 0 {},
            0x11 => {
                let mut content = self.package();
                let size = content.data();
                let length = content.0.len();
                let low = size.get(1).map_or(0, |byte| usize::from(*byte));
                assert_eq!(low, length & 0xFF, "the size of a buffer");
            }
            0x12 => {
                let mut content = self.package();
                for _ in 0..content.byte() {
                    content.data();
                }
                assert!(content.is_empty());
            }
            other => panic!("{other:#x} is no constant"),
        }
        all[..all.len() - self.0.len()].to_vec()
    }

    fn declarations(&mut self, scope: &str, space: &mut Namespace) {
        while !self.is_empty() {
            self.declaration(scope, space);
        }
    }

    fn declaration(&mut self, scope: &str, space: &mut Namespace) {
        let mut declare = |name: String, object| {
            let path = join(scope, &name);
            assert_eq!(space.insert(path.clone(), object), None, "{path} twice");
            path
        };
        match self.byte() {
            0x08 => {
                let name = self.name();
                declare(name, Object::Name(self.data()));
            }
            0x10 => {
                let mut content = self.package();
                let path = join(scope, &content.name());
                content.declarations(&path, space);
            }
            0x14 => {
                let mut content = self.package();
                let name = content.name();
                let arguments = content.byte() & 7;
                let body = content.0.to_vec();
                declare(name, Object::Method { arguments, body });
            }
            0x5B => match self.byte() {
                0x01 => {
                    declare(self.name(), Object::Mutex);
                    self.byte();
                }
                0x80 => {
                    declare(self.name(), Object::Region);
                    assert_eq!(self.byte(), 1, "I/O ports");
                    self.data();
                    self.data();
                }
                0x81 => {
                    let mut content = self.package();
                    let region = join(scope, &content.name());
                    content.byte();
                    while !content.is_empty() {
                        declare(content.segment(), Object::Field);
                        content.byte();
                    }
                    assert_eq!(space.get(&region), Some(&Object::Region));
                }
                0x82 => {
                    let mut content = self.package();
                    let path = declare(content.name(), Object::Device);
                    content.declarations(&path, space);
                }
                other => panic!("{other:#x} declares nothing"),
            },
            other => panic!("{other:#x} declares nothing"),
        }
    }
}

/// A method whose body is read.
struct Method<'a> {
    path: &'a str,
    arguments: u8,
    space: &'a Namespace,
    /// Names that it has declared so far, of parts of buffers.
    own: Vec<String>,
}

impl Method<'_> {
    /// What `name` means here: in the method, or in the nearest scope around it that has it.
    fn resolve(&self, name: &str) -> &Object {
        if self.own.iter().any(|own| own == name) {
            return &Object::Field;
        }
        let mut scope = self.path;
        loop {
            if let Some(object) = self.space.get(&join(scope, name)) {
                return object;
            }
            assert_ne!(scope, "\\", "{name} in {}", self.path);
            scope = scope.rsplit_once('.').map_or("\\", |(outer, _)| outer);
        }
    }

    fn expect(&self, body: &mut Reader<'_>, object: &Object) {
        let name = body.name();
        assert_eq!(self.resolve(&name), object, "{name} in {}", self.path);
    }

    fn terms(&mut self, body: &mut Reader<'_>) {
        let mut after_if = false;
        while !body.is_empty() {
            let operator = body.0[0];
            assert!(operator != 0xA1 || after_if, "else without if");
            after_if = operator == 0xA0;
            self.term(body);
        }
    }

    fn target(&mut self, body: &mut Reader<'_>) {
        if body.0[0] == 0 {
            body.byte();
        } else {
            self.term(body);
        }
    }

    fn term(&mut self, body: &mut Reader<'_>) {
        let operator = body.0[0];
        if matches!(operator, b'A'..=b'Z' | b'_' | b'\\') {
            let name = body.name();
            if let Object::Method { arguments, .. } = *self.resolve(&name) {
                for _ in 0..arguments {
                    self.term(body);
                }
            }
            return;
        }
        if operator < 0x20 {
            body.data();
            return;
        }
        body.byte();
        match operator {
            0x60..=0x67 => {}
            0x68..=0x6E => assert!(operator - 0x68 < self.arguments, "{}", self.path),
            0x70 | 0x93 | 0x95 => {
                self.term(body);
                self.term(body);
            }
            0x79 | 0x7A | 0x7B | 0x7D | 0x88 => {
                self.term(body);
                self.term(body);
                self.target(body);
            }
            0x86 => {
                self.expect(body, &Object::Device);
                self.term(body);
            }
            0x8A => {
                self.term(body);
                self.term(body);
                self.own.push(body.name());
            }
            0x92 | 0xA4 => self.term(body),
            0xA0 | 0xA2 => {
                let mut content = body.package();
                self.term(&mut content);
                self.terms(&mut content);
            }
            0xA1 => self.terms(&mut body.package()),
            0x5B => match body.byte() {
                0x23 => {
                    self.expect(body, &Object::Mutex);
                    body.take(2);
                }
                0x27 => self.expect(body, &Object::Mutex),
                other => panic!("{other:#x} in {}", self.path),
            },
            other => panic!("{other:#x} in {}", self.path),
        }
    }
}
