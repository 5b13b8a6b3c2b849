//! What is kept of a medium while it changes, late or not at all.

use std::fs::File;
use std::io::Read;

use reeve_ipc::spec::VsockSpec;

use super::*;

const SLOT: u8 = 3;
const SHORT: Duration = Duration::from_millis(50);

/// What a device keeps that has one descriptor, and what reads its end once that is closed. Of which device is
/// told by `cid`.
fn kept(cid: u32) -> (Kept, File) {
    let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
    let mut table = FdTable::new();
    let spec = DeviceSpec::Vsock(VsockSpec {
        slot: PciSlot::try_from(SLOT).expect("a slot"),
        cid,
        listener: table.push(writer).expect("room"),
        acceptor: None,
    });
    let kept = Kept::of(&spec, &table).expect("a descriptor");
    (kept, File::from(reader))
}

fn cid(kept: &Kept) -> u32 {
    match kept.parts().0 {
        DeviceSpec::Vsock(spec) => spec.cid,
        _ => 0,
    }
}

fn is_closed(reader: &File) -> bool {
    rustix::io::ioctl_fionbio(reader, true).expect("a setting");
    matches!((&*reader).read(&mut [0; 1]), Ok(0))
}

#[test]
fn what_a_medium_was_made_of_is_closed_where_it_is_exchanged_before_anybody_hears_of_it() {
    let ((mut place, old), (new, newer)) = (kept(3), kept(4));
    let deadline = Instant::now() + SHORT * 100;
    let done = exchange(&mut place, new, deadline, |done| {
        std::thread::spawn(move || done(Ok(7)));
        Ok(())
    });
    assert_eq!(done, Ok(()));
    assert_eq!(cid(&place), 4);
    assert!(is_closed(&old) && !is_closed(&newer));
}

#[test]
fn a_medium_that_changes_late_is_kept_as_the_new_one_and_closes_the_old_then() {
    for slow in [false, true] {
        let ((mut place, old), (new, newer)) = (kept(3), kept(4));
        let (hold, held) = sync_channel(1);
        let begin = Instant::now();
        let done = exchange(&mut place, new, begin + SHORT, |done| {
            hold.send(done).expect("room");
            match slow {
                true => Err(SpawnerError::Slow(SHORT)),
                false => Ok(()),
            }
        });
        let error = done.expect_err("late");
        assert_eq!(error.code, ErrorCode::Timeout);
        assert!(error.message.contains("its medium changes when"), "{error}");
        assert_eq!(cid(&place), 4);
        assert!(!is_closed(&old));
        held.recv().expect("begun")(Ok(7));
        assert!(is_closed(&old) && !is_closed(&newer));
    }
}

#[test]
fn a_medium_that_does_not_change_is_kept_as_it_was() {
    let ((mut place, old), (new, newer)) = (kept(3), kept(4));
    let deadline = Instant::now() + SHORT * 100;
    let done = exchange(&mut place, new, deadline, |done| {
        done(Err(io::ErrorKind::ResourceBusy.into()));
        Ok(())
    });
    assert_eq!(done.expect_err("refused").code, ErrorCode::Host);
    assert_eq!(cid(&place), 3);
    assert!(!is_closed(&old) && is_closed(&newer));
}

#[test]
fn what_was_not_begun_is_not_said_to_come() {
    for error in [SpawnerError::Busy, SpawnerError::Gone] {
        assert_eq!(not_yet(error, "its size").code, ErrorCode::Host);
    }
    assert_eq!(not_begun(&SpawnerError::Slow(SHORT)).code, ErrorCode::Host);
}

#[test]
fn storage_that_owes_a_look_is_not_waited_for_again_until_it_has_answered() {
    let mut owed = LatePeek::default();
    let (hold, held) = sync_channel(1);
    let begin = Instant::now();
    let late = owed.wait_for(|_, done| {
        hold.send(done).expect("room");
        Ok(())
    });
    assert_eq!(late.expect_err("late").code, ErrorCode::Timeout);
    assert!(begin.elapsed() >= PEEK_PATIENCE);
    let again = owed.wait_for(|_, _| panic!("it is asked"));
    assert_eq!(again.expect_err("owed").code, ErrorCode::Timeout);
    held.recv().expect("begun")(Ok(vec![7]));
    let read = owed.wait_for(|_, done| {
        std::thread::spawn(move || done(Ok(vec![8])));
        Ok(())
    });
    assert_eq!(read, Ok(vec![8]));
    // One that is refused at once is owed no more.
    for _ in 0..2 {
        let refused = owed.wait_for(|_, done| {
            done(Err(io::ErrorKind::InvalidInput.into()));
            Ok(())
        });
        assert_eq!(
            refused.expect_err("refused").code,
            ErrorCode::InvalidArgument
        );
    }
}
