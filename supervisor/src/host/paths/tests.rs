use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;

use super::*;

struct World {
    directory: tempfile::TempDir,
    allowed: AllowedPaths,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = directory.path().join("images");
        fs::create_dir_all(images.join("deep")).unwrap();
        fs::write(images.join("deep/disk"), "content").unwrap();
        fs::write(directory.path().join("secret"), "secret").unwrap();
        Self {
            allowed: AllowedPaths::new(vec![images]),
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn open(&self, name: &str) -> Result<String, PathError> {
        let fd = self.allowed.open_read("kernel", &self.path(name))?;
        let mut content = String::new();
        fs::File::from(fd).read_to_string(&mut content).unwrap();
        Ok(content)
    }
}

#[test]
fn a_file_beneath_a_directory_is_opened_and_a_link_that_stays_there_too() {
    let world = World::new();
    assert_eq!(world.open("images/deep/disk").unwrap(), "content");
    symlink("deep/disk", world.path("images/link")).unwrap();
    assert_eq!(world.open("images/link").unwrap(), "content");
    symlink("../link", world.path("images/deep/up")).unwrap();
    assert_eq!(world.open("images/deep/up").unwrap(), "content");
}

#[test]
fn a_directory_to_share_lies_beneath_another_and_is_one() {
    let world = World::new();
    let open = |name: &str| {
        let opened = world.allowed.open_directory("share", &world.path(name));
        opened.map(|fd| rustix::fs::fstat(fd).unwrap().st_ino)
    };
    let deep = fs::metadata(world.path("images/deep")).unwrap();
    assert_eq!(
        open("images/deep").unwrap(),
        std::os::unix::fs::MetadataExt::ino(&deep)
    );
    // Not a whole allowed directory, with whatever others have put there.
    assert!(matches!(open("images"), Err(PathError::Outside { .. })));
    assert!(matches!(
        open("images/deep/disk"),
        Err(PathError::Os { .. })
    ));
    symlink("/etc", world.path("images/out")).unwrap();
    assert!(matches!(open("images/out"), Err(PathError::Escapes { .. })));
}

#[test]
fn a_link_that_leads_out_is_refused() {
    let world = World::new();
    symlink("../secret", world.path("images/out")).unwrap();
    symlink("/", world.path("images/root")).unwrap();
    symlink("/proc/self/root", world.path("images/magic")).unwrap();
    for name in [
        "images/out",
        "images/root/etc/passwd",
        "images/magic/etc/passwd",
    ] {
        assert!(
            matches!(world.open(name), Err(PathError::Escapes { .. })),
            "{name}"
        );
    }
}

#[test]
fn what_is_outside_is_refused_with_the_line_that_would_allow_it() {
    let allowed = AllowedPaths::new(DEFAULT_DIRECTORIES.map(PathBuf::from).to_vec());
    let error = allowed
        .open_read("kernel", Path::new("/srv/vm/bz"))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel '/srv/vm/bz' is outside the allowed directories; allow it with \
         'allowed_directories = [\"/var/lib/reeve/images\", \"/var/lib/libvirt/images\", \
         \"/var/lib/libvirt/boot\", \"/srv/vm\"]' in /etc/reeve/reeve.toml"
    );
    // A pool is that directory itself.
    let error = allowed.allows_pool(Path::new("/srv/vm")).unwrap_err();
    assert!(error.to_string().contains(", \"/srv/vm\"]'"), "{error}");
    for outside in [
        "/disk",
        "/",
        "/var/lib/reeve/images",
        "/var/lib/reeve/images-2/x",
    ] {
        let error = allowed.open_read("kernel", Path::new(outside)).unwrap_err();
        assert!(
            matches!(error, PathError::Outside { .. }),
            "{outside}: {error}"
        );
    }
    let error = allowed.open_read("initrd", Path::new("/disk")).unwrap_err();
    assert!(!error.to_string().contains("[\"/\""), "{error}");
    // A pool's directory is allowed itself: not all that is beside it.
    for pool in ["/srv/vm", "/vm"] {
        let error = allowed.allows_pool(Path::new(pool)).unwrap_err();
        assert!(
            error.to_string().contains(&format!(", \"{pool}\"]'")),
            "{error}"
        );
    }
}

#[test]
fn the_advised_line_is_valid_whatever_the_directory_is_called() {
    let allowed = AllowedPaths::new(vec!["/a".into()]);
    let error = allowed
        .open_read("disk", Path::new("/odd \"name\"\\/x"))
        .unwrap_err();
    let line = error.to_string();
    let start = line.find("allowed_directories").unwrap();
    let end = line.rfind("' in ").unwrap();
    let table: toml::Table = line[start..end].parse().unwrap();
    let list = table["allowed_directories"].as_array().unwrap();
    assert_eq!(list[1].as_str(), Some("/odd \"name\"\\"));
}

#[test]
fn dots_and_relative_paths_are_refused() {
    let world = World::new();
    assert!(matches!(
        world.open("images/deep/../deep/disk"),
        Err(PathError::Form { .. })
    ));
    assert!(matches!(
        world
            .allowed
            .open_read("kernel", Path::new("images/deep/disk")),
        Err(PathError::Form { .. })
    ));
}

#[test]
fn a_pipe_a_directory_and_what_is_missing_are_refused_without_waiting() {
    let world = World::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("images/pipe"), Mode::RWXU).unwrap();
    for (name, kind) in [("images/pipe", "a pipe"), ("images/deep", "a directory")] {
        let error = world.open(name).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("is {kind}, not a file")),
            "{error}"
        );
    }
    let error = world.open("images/none").unwrap_err().to_string();
    assert!(error.ends_with("no such file or directory"), "{error}");
}

#[test]
fn of_two_directories_the_outer_one_decides_how_far_links_lead() {
    let world = World::new();
    let images = world.path("images");
    fs::write(images.join("top"), "top").unwrap();
    symlink("../top", images.join("deep/link")).unwrap();
    let allowed = AllowedPaths::new(vec![images.join("deep"), images.clone()]);
    assert!(allowed.open_read("disk", &images.join("deep/link")).is_ok());
}

#[test]
fn a_directory_that_is_put_in_the_place_of_an_allowed_one_is_not_followed() {
    let world = World::new();
    fs::create_dir_all(world.path("private/deep")).unwrap();
    fs::write(world.path("private/deep/disk"), "secret").unwrap();
    fs::rename(world.path("images"), world.path("images.away")).unwrap();
    symlink("private", world.path("images")).unwrap();
    let error = world.open("images/deep/disk").unwrap_err();
    assert!(matches!(error, PathError::Replaced { .. }), "{error}");
    // The same one step above.
    let outer = tempfile::tempdir().unwrap();
    let images = outer.path().join("tenant/images");
    fs::create_dir_all(&images).unwrap();
    let allowed = AllowedPaths::new(vec![images.clone()]);
    fs::rename(outer.path().join("tenant"), outer.path().join("away")).unwrap();
    symlink(world.path("private"), outer.path().join("tenant")).unwrap();
    fs::create_dir_all(world.path("private/images")).unwrap();
    fs::write(world.path("private/images/disk"), "secret").unwrap();
    let error = allowed
        .open_read("kernel", &images.join("disk"))
        .unwrap_err();
    assert!(matches!(error, PathError::Replaced { .. }), "{error}");
}

#[test]
fn a_directory_that_is_configured_by_a_link_is_what_the_link_meant_then() {
    let world = World::new();
    symlink("images", world.path("vm")).unwrap();
    let allowed = AllowedPaths::new(vec![world.path("vm"), world.path("later")]);
    let disk = world.path("vm/deep/disk");
    assert!(allowed.open_read("kernel", &disk).is_ok());
    fs::create_dir_all(world.path("private/deep")).unwrap();
    fs::write(world.path("private/deep/disk"), "secret").unwrap();
    fs::remove_file(world.path("vm")).unwrap();
    symlink("private", world.path("vm")).unwrap();
    let mut content = String::new();
    let fd = allowed.open_read("kernel", &disk).unwrap();
    fs::File::from(fd).read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    // One that did not exist then is opened once it does, but not through a link.
    fs::create_dir(world.path("later")).unwrap();
    fs::write(world.path("later/disk"), "content").unwrap();
    let later = world.path("later/disk");
    assert!(allowed.open_read("kernel", &later).is_ok());
    fs::rename(world.path("later"), world.path("elsewhere")).unwrap();
    symlink("elsewhere", world.path("later")).unwrap();
    let error = allowed.open_read("kernel", &later).unwrap_err();
    assert!(matches!(error, PathError::Replaced { .. }), "{error}");
}

#[test]
fn links_and_directories_that_change_while_a_path_is_resolved_lead_nowhere_else() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let world = World::new();
    fs::create_dir(world.path("private")).unwrap();
    fs::write(world.path("private/disk"), "secret").unwrap();
    fs::create_dir(world.path("images/real")).unwrap();
    fs::write(world.path("images/real/disk"), "content").unwrap();
    symlink("../private", world.path("images/bad")).unwrap();
    symlink("real", world.path("images/swapped")).unwrap();
    let (done, mut opened, mut refused) = (AtomicBool::new(false), 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let directory = fs::File::open(world.path("images")).unwrap();
            while !done.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&directory, "bad", &directory, "swapped", exchange)
                    .unwrap();
            }
        });
        // Long enough for both to be met, however the threads are scheduled.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        for number in 0.. {
            let met = number >= 20_000 && opened > 0 && refused > 0;
            if met || std::time::Instant::now() >= deadline {
                break;
            }
            match world.open("images/swapped/disk") {
                Ok(content) => {
                    assert_eq!(content, "content");
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(
        opened > 0 && refused > 0,
        "{opened} opened, {refused} refused"
    );
}
