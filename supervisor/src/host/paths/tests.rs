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
         \"/srv/vm\"]' in /etc/reeve/reeve.toml"
    );
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
    rustix::fs::mkfifoat(CWD, world.path("images/pipe"), Mode::RWXU).unwrap();
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
