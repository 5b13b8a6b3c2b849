//! The supervisor dies at each named point of each operation, is started again, and the world is
//! compared with what was acknowledged; then the client goes on where it was, and ends everything.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::model::Domain;
use reeve_tests::daemon::{Daemon, signal};
use reeve_tests::domain::workers;
use rustix::process::Signal;

use super::script::{Cast, Script, Step};
use super::world::{Pids, World, assert_is, become_one_of, end_everything};

/// How often one point is gone through; a life comes to none more often.
const MOST: u32 = 12;
/// Instances at the same time: most of the time each waits.
const THREADS: usize = 6;
/// How long what was begun and not acknowledged may take to happen all the same.
const MEANWHILE: Duration = Duration::from_millis(300);
/// The same where it is a guest that does it, on a host that is busy with others. What came later would come on top
/// of what is asked for again then.
const GUESTS_TIME: Duration = Duration::from_secs(3);
/// How long a world may take to become what it must.
const SOON: Duration = Duration::from_secs(20);

/// How a script went.
struct Progress {
    /// What there was before each step, and after the last that was acknowledged.
    worlds: Vec<World>,
    pids: Pids,
    /// Whether the supervisor died.
    died: bool,
}

impl Progress {
    /// The steps that were acknowledged.
    fn acknowledged(&self) -> usize {
        self.worlds.len() - 1
    }

    fn last(&self) -> &World {
        self.worlds.last().expect("there is always one")
    }
}

fn has_died(error: &CallError) -> bool {
    matches!(error, CallError::Closed | CallError::Socket(_))
}

/// Goes through the steps, from where `progress` stands, until the supervisor dies.
fn go_on(daemon: &Daemon, cast: &Cast, steps: &[Step], progress: &mut Progress) -> Result<()> {
    let mut connection = daemon.connect()?;
    while let Some(step) = steps.get(progress.acknowledged()) {
        match take_step(&mut connection, cast, step, progress) {
            Ok(settled) => settled?,
            Err(error) if has_died(&error) => {
                progress.died = true;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Asks, and waits for what must come of it.
fn take_step(
    connection: &mut Connection,
    cast: &Cast,
    step: &Step,
    progress: &mut Progress,
) -> Result<Result<()>, CallError> {
    let asked = (step.ask)(connection, cast);
    match asked {
        Err(error) if step.fails && error.refused().is_some() => {}
        Ok(()) if step.fails => return Ok(Err(anyhow::anyhow!("a step succeeded"))),
        asked => asked?,
    }
    let mut world = progress.last().clone();
    (step.apply)(cast, &mut world);
    progress.worlds.push(world);
    let settled = become_one_of(connection, &[progress.last()], SOON)?;
    match settled {
        Ok((_, pids)) => {
            progress.pids = pids;
            Ok(Ok(()))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// What may be there after the supervisor died: what was acknowledged, or that and the step that was
/// not. Which it is, as the number of steps done.
fn recovered(
    daemon: &Daemon,
    cast: &Cast,
    steps: &[Step],
    progress: &mut Progress,
) -> Result<usize> {
    let mut connection = daemon.connect()?;
    let before = progress.last().clone();
    let mut allowed = vec![before.clone()];
    let mut patience = MEANWHILE;
    if let Some(step) = steps.get(progress.acknowledged()) {
        if step.by_guest {
            patience = GUESTS_TIME;
        }
        let mut after = before.clone();
        (step.apply)(cast, &mut after);
        if after != before {
            allowed.push(after);
        }
    }
    if let Some(after) = allowed.get(1) {
        // What was asked of the guest may come still; a client would see, and ask again if not.
        let _ = become_one_of(&mut connection, &[after], patience)?;
    }
    let allowed: Vec<&World> = allowed.iter().rev().collect();
    if steps.iter().any(|step| step.moves) {
        // Either worker may have it, and only one.
        progress.pids.clear();
    }
    let index = assert_is(&mut connection, &allowed, &progress.pids, cast.domains())?;
    let world = (*allowed[index]).clone();
    if world != before {
        progress.worlds.push(world);
    }
    Ok(progress.acknowledged())
}

/// One life in which the supervisor dies at `point`, the count in it; whether it did.
fn life(script: &Script, point: &str) -> Result<bool> {
    let cast = Cast::new();
    let mut daemon = Daemon::prepare()?;
    cast.prepare(&mut daemon)?;
    daemon.set("REEVE_CRASH", point);
    daemon.spawn()?;
    let steps = (script.steps)();
    let mut progress = Progress {
        worlds: vec![World::new()],
        pids: Pids::new(),
        died: false,
    };
    go_on(&daemon, &cast, &steps, &mut progress)?;
    daemon.set("REEVE_CRASH", "");
    let died = progress.died;
    if died {
        daemon.wait_for_end()?;
        daemon.spawn()?;
        recovered(&daemon, &cast, &steps, &mut progress)
            .with_context(|| format!("after step {}", progress.acknowledged()))?;
        progress.died = false;
        go_on(&daemon, &cast, &steps, &mut progress)
            .with_context(|| format!("going on with step {}", progress.acknowledged()))?;
        ensure!(!progress.died, "it died again");
    }
    ensure!(progress.acknowledged() == steps.len(), "not all was done");
    let log = daemon.log();
    end_everything(&daemon, cast.domains()).with_context(|| log)?;
    Ok(died)
}

/// Runs `life` at every point of every script, each as often as it is come to, several at a time.
fn every_point(scripts: &[Script], names: &[String]) -> Result<()> {
    let mut work = VecDeque::new();
    for script in scripts {
        let own = names
            .iter()
            .filter(|name| name.starts_with(&format!("{}.", script.operation)));
        work.extend(own.map(|name| (script, name.as_str())));
    }
    ensure!(!work.is_empty(), "no point is listed");
    all_of(work, |(script, name)| {
        for count in 1..=MOST {
            let point = format!("{name}:{count}");
            let died = life(script, &point).with_context(|| point.clone())?;
            if !died {
                ensure!(count > 1, "{name} is listed, and nothing comes to it");
                return Ok(());
            }
        }
        anyhow::bail!("{name} is come to again and again")
    })
}

/// Does all the work on a few threads; the first error ends it.
fn all_of<T: Send>(work: VecDeque<T>, each: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let work = Mutex::new(work);
    let next = || work.lock().expect("no panic").pop_front();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some(item) = next() {
                        if let Err(error) = each(item) {
                            work.lock().expect("no panic").clear();
                            return Err(error);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })
}

#[test]
fn a_supervisor_that_dies_at_any_point_has_kept_its_word() -> Result<()> {
    // Those of storage, networks and their filters have tests of their own: `storage.rs`, `networks.rs`, `nwfilters.rs`.
    let others = ["pool-", "volume-", "network-", "nwfilter-"];
    let names: Vec<String> = reeved::crash::names()
        .filter(|name| !others.iter().any(|other| name.starts_with(other)))
        .collect();
    let scripts = super::script::all();
    for name in &names {
        let operation = name.split('.').next().unwrap_or_default();
        ensure!(
            operation == "adopt" || scripts.iter().any(|script| script.operation == operation),
            "no script is for {name}"
        );
    }
    every_point(&scripts, &names)
}

/// What one supervisor leaves for the next to adopt: two that live, one whose worker died meanwhile,
/// and one that was not launched yet.
fn leave_everything(daemon: &mut Daemon, cast: &Cast) -> Result<World> {
    daemon.set("REEVE_CRASH", "start.before-call:4");
    daemon.spawn()?;
    let steps = super::script::to_be_adopted();
    let mut progress = Progress {
        worlds: vec![World::new()],
        pids: Pids::new(),
        died: false,
    };
    go_on(daemon, cast, &steps, &mut progress)?;
    ensure!(
        progress.died && progress.acknowledged() + 1 == steps.len(),
        "it died at the last start"
    );
    daemon.wait_for_end()?;
    let dead = &cast.dead.name;
    for pid in workers(dead.as_str()) {
        signal(pid, Signal::KILL)?;
        reeve_tests::domain::wait_until_gone(pid, Duration::from_secs(20))?;
    }
    let mut world = progress.last().clone();
    if let Some(known) = world.get_mut(dead.as_str()) {
        known.run = super::world::Run::Off;
    }
    Ok(world)
}

/// The next supervisor dies at `point` of its start; the one after it finds everything.
fn adoption(point: &str) -> Result<bool> {
    let cast = Cast::new();
    let mut daemon = Daemon::prepare()?;
    cast.prepare(&mut daemon)?;
    let world = leave_everything(&mut daemon, &cast)?;
    let pids: Pids = [&cast.web, &cast.other]
        .into_iter()
        .filter_map(|domain| {
            let name = domain.name.to_string();
            let pid = workers(&name).first().copied();
            pid.map(|pid| (name, pid))
        })
        .collect();
    ensure!(pids.len() == 2, "{pids:?}");
    daemon.set("REEVE_CRASH", point);
    daemon.spawn_unready()?;
    let died = dies_or_serves(&mut daemon)?;
    daemon.set("REEVE_CRASH", "");
    if died {
        daemon.spawn()?;
    }
    let mut connection = daemon.connect()?;
    assert_is(&mut connection, &[&world], &pids, cast.domains())?;
    drop(connection);
    let log = daemon.log();
    end_everything(&daemon, cast.domains()).with_context(|| log)?;
    Ok(died)
}

/// Waits until the supervisor is gone, or has taken up everything.
fn dies_or_serves(daemon: &mut Daemon) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if daemon.connect().is_ok() {
            return Ok(false);
        }
        if daemon.has_ended()? {
            return Ok(true);
        }
        ensure!(Instant::now() < deadline, "it neither ends nor serves");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_supervisor_that_dies_while_it_adopts_leaves_it_all_to_the_next() -> Result<()> {
    let names: Vec<String> = reeved::crash::names()
        .filter(|name| name.starts_with("adopt."))
        .collect();
    let work = names.iter().map(String::as_str).collect();
    all_of(work, |name| {
        for count in 1..=MOST {
            let point = format!("{name}:{count}");
            let died = adoption(&point).with_context(|| point.clone())?;
            if !died {
                ensure!(count > 1, "{name} is listed, and nothing comes to it");
                return Ok(());
            }
        }
        anyhow::bail!("{name} is come to again and again")
    })
}

/// What was being ended is ended by the next supervisor, and by the one after it where that dies too.
#[test]
fn an_end_that_was_begun_is_finished_through_any_number_of_deaths() -> Result<()> {
    let points = reeved::crash::names().filter(|name| {
        name.starts_with("destroy.") && !name.ends_with("answer") && !name.contains("before-status")
    });
    let points: Vec<String> = points.collect();
    let work = points.iter().map(String::as_str).collect();
    all_of(work, |point| {
        let cast = Cast::new();
        let mut daemon = Daemon::prepare()?;
        cast.prepare(&mut daemon)?;
        daemon.set("REEVE_CRASH", "destroy.after-status");
        daemon.spawn()?;
        let steps = super::script::to_be_destroyed();
        let mut progress = Progress {
            worlds: vec![World::new()],
            pids: Pids::new(),
            died: false,
        };
        go_on(&daemon, &cast, &steps, &mut progress)?;
        ensure!(progress.died, "{point}: it was destroyed already");
        daemon.wait_for_end()?;
        daemon.set("REEVE_CRASH", point);
        daemon.spawn_unready()?;
        daemon
            .wait_for_end()
            .with_context(|| format!("{point} is not come to by the next supervisor"))?;
        daemon.set("REEVE_CRASH", "");
        daemon.spawn()?;
        let mut world = progress.last().clone();
        let last = steps.last().expect("a step");
        (last.apply)(&cast, &mut world);
        let mut connection = daemon.connect()?;
        assert_is(&mut connection, &[&world], &Pids::new(), cast.domains())
            .with_context(|| point.to_owned())?;
        drop(connection);
        end_everything(&daemon, cast.domains()).with_context(|| point.to_owned())
    })
}

/// The definitions of a cast, for the books.
impl Cast {
    fn domains(&self) -> &[Domain] {
        &self.all
    }
}
