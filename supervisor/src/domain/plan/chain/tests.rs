//! Names that images give, and what becomes of them.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::*;

/// Says the same of every image.
#[derive(Debug)]
struct Says(Result<Option<BackingNote>, ReadError>);

impl BackingReader for Says {
    fn backing(&self, _: BorrowedFd<'_>) -> Result<Option<BackingNote>, ReadError> {
        self.0.clone()
    }
}

fn note(name: &str, format: Option<&str>) -> Says {
    Says(Ok(Some(BackingNote {
        name: name.to_owned(),
        format: format.map(str::to_owned),
    })))
}

fn below(path: &str, says: &Says) -> Result<Option<Layer>, ChainError> {
    let file = tempfile::tempfile().unwrap();
    let layer = Layer {
        path: path.into(),
        format: DiskFormat::Qcow2,
    };
    Chain::default().below(&layer, file.as_fd(), says)
}

#[test]
fn a_name_begins_at_the_directory_of_the_image_that_gives_it() {
    for (image, name, path) in [
        ("/images/top", "base", "/images/base"),
        ("/images/top", "sub/base", "/images/sub/base"),
        ("/images/top", "/etc/shadow", "/etc/shadow"),
        // The policy's to refuse.
        ("/images/top", "../base", "/images/../base"),
        ("top", "base", "base"),
    ] {
        let layer = below(image, &note(name, Some("raw"))).unwrap().unwrap();
        assert_eq!(layer.path, PathBuf::from(path));
        assert_eq!(layer.format, DiskFormat::Raw);
    }
    assert_eq!(below("/a", &Says(Ok(None))), Ok(None));
}

#[test]
fn a_name_that_is_no_path_is_refused_by_that_name() {
    for name in [
        "json:{}",
        "nbd://host/x",
        "file:base",
        "nbd:unix:/x",
        "",
        "a\nb",
        "a\0",
    ] {
        let refused = below("/a", &note(name, Some("raw"))).unwrap_err();
        let line = refused.to_string();
        assert!(matches!(refused, ChainError::NoPath(_)), "{line}");
        assert!(!line.contains(char::is_control), "{line}");
        assert!(refused.is_of_definition());
    }
    assert!(below("/a", &note("./a:b", Some("raw"))).is_ok());
}

#[test]
fn a_format_is_never_guessed_and_is_one_that_there_is() {
    for format in [None, Some("")] {
        let refused = below("/a", &note("base", format)).unwrap_err();
        let line = refused.to_string();
        assert!(
            line.contains("'base'") && line.contains("qemu-img rebase -u"),
            "{line}"
        );
    }
    let refused = below("/a", &note("base", Some("vm\ndk"))).unwrap_err();
    assert!(refused.to_string().contains("'vm\\ndk'"), "{refused}");
}

#[test]
fn a_raw_image_is_not_asked_and_ends_the_chain() {
    let file = tempfile::tempfile().unwrap();
    let layer = Layer {
        path: "/a".into(),
        format: DiskFormat::Raw,
    };
    let below = Chain::default().below(&layer, file.as_fd(), &note("base", Some("raw")));
    assert_eq!(below, Ok(None));
}

#[test]
fn a_chain_that_comes_back_or_does_not_end_is_refused() {
    let layer = Layer {
        path: "/a".into(),
        format: DiskFormat::Qcow2,
    };
    let says = note("base", Some("qcow2"));
    let files: Vec<File> = (0..MAX_LAYERS)
        .map(|_| tempfile::tempfile().unwrap())
        .collect();
    let mut chain = Chain::default();
    for file in &files[..MAX_LAYERS - 1] {
        chain.enter(file.as_fd()).unwrap();
        chain.below(&layer, file.as_fd(), &says).unwrap();
    }
    assert_eq!(chain.enter(files[0].as_fd()), Err(ChainError::Loop));
    chain.enter(files[MAX_LAYERS - 1].as_fd()).unwrap();
    let last = chain.below(&layer, files[MAX_LAYERS - 1].as_fd(), &says);
    assert!(matches!(last, Err(ChainError::Deep(_))), "{last:?}");
}

#[test]
fn a_reader_that_fails_is_no_fault_of_the_definition() {
    let says = Says(Err(ReadError::Slow(5)));
    assert!(!below("/a", &says).unwrap_err().is_of_definition());
    let says = Says(Err(ReadError::Image("has no qcow2 magic".to_owned())));
    assert!(below("/a", &says).unwrap_err().is_of_definition());
}
