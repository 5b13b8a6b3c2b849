use std::fs;

use super::*;

const SMALL: Layout = Layout {
    // Out of the way of what runs on this machine: a uid that a process has is handed out to nobody.
    first_uid: FIRST_UID + UID_COUNT - 16,
    block_uids: 2,
    blocks: 4,
};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn registry(&self) -> PathBuf {
        self.0.path().join("run/uid-blocks")
    }

    fn state(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn instance(&self, name: &str) -> UidBlocks {
        UidBlocks::with_layout(&self.registry(), &self.state(name), SMALL).unwrap()
    }
}

#[test]
fn the_first_uid_is_of_block_1_and_the_layout_fills_the_range() {
    let world = World::new();
    let blocks = UidBlocks::open(&world.registry(), &world.state("a")).unwrap();
    let first = FIRST_UID + BLOCK_UIDS;
    assert!((first..first + BLOCK_UIDS).contains(&blocks.allocate().unwrap()));
    assert_eq!(blocks.layout.blocks * BLOCK_UIDS, UID_COUNT);
}

#[test]
fn two_instances_at_once_never_share_a_uid_and_the_last_block_ends_it() {
    let world = World::new();
    let instances = [world.instance("a"), world.instance("b")];
    let uids: BTreeSet<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = instances
            .iter()
            .map(|blocks| {
                scope.spawn(|| std::iter::from_fn(|| blocks.allocate().ok()).collect::<Vec<_>>())
            })
            .collect();
        let lists: Vec<u32> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(lists.len(), 6);
        lists.into_iter().collect()
    });
    assert_eq!(uids, (SMALL.first_uid + 2..SMALL.first_uid + 8).collect());
    assert!(matches!(
        instances[0].allocate(),
        Err(UidBlockError::Exhausted { blocks: 3, .. })
    ));
}

#[test]
fn a_released_uid_rests_before_it_is_used_again() {
    let world = World::new();
    let blocks = world.instance("a");
    let first = blocks.allocate().unwrap();
    blocks.release(first);
    assert_eq!(blocks.in_use(), 0);
    assert_eq!(blocks.allocate().unwrap(), first + 1);
    assert_eq!(blocks.allocate().unwrap(), first);
}

#[test]
fn a_restarted_instance_has_its_blocks_again_and_keeps_off_marked_uids() {
    let world = World::new();
    let uid = world.instance("a").allocate().unwrap();
    let blocks = world.instance("a");
    blocks.mark_in_use(uid).unwrap();
    assert_eq!(blocks.allocate().unwrap(), uid + 1);
    assert_eq!(fs::read_dir(world.registry()).unwrap().count(), 1);
}

#[test]
fn a_uid_that_two_records_name_is_free_when_both_have_let_it_go() {
    let world = World::new();
    let blocks = world.instance("a");
    let uid = blocks.allocate().unwrap();
    assert!(!blocks.is_shared(uid));
    blocks.mark_in_use(uid).unwrap();
    assert!(blocks.is_shared(uid), "a record of before names it as well");
    blocks.release(uid);
    assert!(!blocks.is_shared(uid));
    assert_eq!(blocks.in_use(), 1, "a worker has it still");
    blocks.release(uid);
    blocks.release(uid);
    assert_eq!(blocks.in_use(), 0);
}

#[test]
fn a_uid_of_another_instance_or_of_no_block_is_refused() {
    let world = World::new();
    let other = world.instance("b").allocate().unwrap();
    let blocks = world.instance("a");
    for uid in [
        other,
        0,
        SMALL.first_uid - 1,
        SMALL.first_uid,
        SMALL.first_uid + 8,
        u32::MAX,
    ] {
        assert_eq!(blocks.mark_in_use(uid), Err(UidBlockError::Foreign { uid }));
    }
}

#[test]
fn a_wiped_registry_is_claimed_again_by_what_is_in_use() {
    let world = World::new();
    let uid = world.instance("a").allocate().unwrap();
    fs::remove_dir_all(world.registry()).unwrap();
    let blocks = world.instance("a");
    blocks.mark_in_use(uid).unwrap();
    assert!(world.instance("b").allocate().unwrap() > uid + 1);
}

#[test]
fn the_block_of_a_state_directory_that_is_gone_is_taken_over() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.instance(name).allocate().unwrap();
    }
    let blocks = world.instance("d");
    assert!(blocks.allocate().is_err());
    fs::remove_dir(world.state("b")).unwrap();
    assert_eq!(blocks.allocate().unwrap(), SMALL.first_uid + 4);
    assert_eq!(
        fs::read_link(world.registry().join("2")).unwrap(),
        world.state("d").canonicalize().unwrap()
    );
}

#[test]
fn a_block_with_a_process_left_is_not_taken_over() {
    use std::os::unix::process::CommandExt;
    let world = World::new();
    let layout = Layout {
        // Out of the way of everything that runs on this machine.
        first_uid: FIRST_UID + UID_COUNT - 4,
        block_uids: 2,
        blocks: 2,
    };
    let open =
        |name| UidBlocks::with_layout(&world.registry(), &world.state(name), layout).unwrap();
    let uid = open("a").allocate().unwrap();
    fs::remove_dir(world.state("a")).unwrap();
    let mut left = std::process::Command::new("sleep")
        .arg("60")
        .uid(uid)
        .spawn()
        .unwrap();
    let refused = open("b").allocate();
    left.kill().unwrap();
    left.wait().unwrap();
    assert!(matches!(refused, Err(UidBlockError::Exhausted { .. })));
    assert_eq!(open("b").allocate().unwrap(), uid);
}

#[test]
fn a_registry_that_stays_locked_is_an_error_and_no_hang() {
    let world = World::new();
    let blocks = world.instance("a");
    let lock = blocks.lock().unwrap();
    assert!(matches!(
        blocks.allocate(),
        Err(UidBlockError::Locked { .. })
    ));
    drop(lock);
    blocks.allocate().unwrap();
}

#[test]
fn a_registry_wiped_under_an_instance_costs_nobody_a_uid() {
    let world = World::new();
    let (a, b) = (world.instance("a"), world.instance("b"));
    let first = a.allocate().unwrap();
    fs::remove_dir_all(world.registry()).unwrap();
    // Its block is claimed again, before another can have it.
    assert_eq!(a.allocate().unwrap(), first + 1);
    assert_eq!(b.allocate().unwrap(), first + 2);
    fs::remove_dir_all(world.registry()).unwrap();
    // The other was first: its block is left to it.
    let c = world.instance("c");
    assert_eq!(c.allocate().unwrap(), first);
    a.release(first);
    assert!(a.allocate().unwrap() >= first + 2);
}

#[test]
fn what_is_no_link_in_the_registry_is_nobodys_block() {
    let world = World::new();
    fs::create_dir_all(world.registry()).unwrap();
    fs::write(world.registry().join("1"), "").unwrap();
    fs::create_dir(world.registry().join("2")).unwrap();
    fs::write(world.registry().join("README"), "").unwrap();
    let blocks = world.instance("a");
    assert_eq!(blocks.allocate().unwrap(), SMALL.first_uid + 6);
    assert!(world.registry().join("1").is_file());
}

#[test]
fn a_uid_that_a_process_has_is_handed_out_to_nobody() {
    use std::os::unix::process::CommandExt;
    let world = World::new();
    let layout = Layout {
        first_uid: FIRST_UID + UID_COUNT - 8,
        block_uids: 2,
        blocks: 2,
    };
    let blocks = UidBlocks::with_layout(&world.registry(), &world.state("a"), layout).unwrap();
    let uid = blocks.allocate().unwrap();
    let mut left = std::process::Command::new("sleep")
        .arg("60")
        .uid(uid)
        .spawn()
        .unwrap();
    assert_eq!(blocks.strays(), [], "it is in use");
    // As the next supervisor finds it, whose status of it is gone.
    let next = UidBlocks::with_layout(&world.registry(), &world.state("a"), layout).unwrap();
    assert_eq!(next.strays(), [(left.id(), uid)]);
    assert_eq!(next.allocate().unwrap(), uid + 1);
    assert!(next.allocate().is_err());
    left.kill().unwrap();
    // One that has ended is nobody's trouble, and is reaped where it is ours: with the first that finds it.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let last = UidBlocks::with_layout(&world.registry(), &world.state("a"), layout).unwrap();
    let is_there = || std::path::Path::new(&format!("/proc/{}", left.id())).exists();
    while is_there() {
        // It may end just after it was found.
        let lived = !has_ended(left.id());
        let strays = last.strays();
        assert!(strays.is_empty() || lived, "{strays:?}");
        assert!(std::time::Instant::now() < deadline);
    }
    let gone = left.wait().unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ECHILD), "it was reaped");
}

fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}
