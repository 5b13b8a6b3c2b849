//! What a client does in the tests of crash points: steps, each with what it makes of the world.

use std::fs;

use anyhow::Result;
use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainAutostartSet, DomainCreate, DomainDefine, DomainDestroy, DomainLabelSet, DomainPause,
    DomainReboot, DomainRename, DomainReset, DomainResume, DomainShutdown, DomainStart, DomainTune,
    DomainUndefine, DomainUpgrade, LabelChange, StartOptions, TuningChange,
};
use reeve_ipc::model::{BootSource, CpuSet, Domain, KernelBoot, VcpuPin};
use reeve_tests::daemon::{Daemon, built_in, named};
use reeve_tests::domain::unique_name;
use tempfile::TempDir;

use super::ECHO;
use super::guest::wait_for_guest;
use super::world::{Kept, Known, Run, World};

/// The domains of one test, with names of their own.
pub struct Cast {
    pub web: Domain,
    /// The same with another name.
    pub renamed: Domain,
    pub other: Domain,
    /// One that is going to die.
    pub dead: Domain,
    /// One whose start will be cut short.
    pub half: Domain,
    /// Its kernel is none.
    pub broken: Domain,
    /// Every one of them.
    pub all: Vec<Domain>,
    images: TempDir,
}

impl Cast {
    pub fn new() -> Self {
        let images = tempfile::tempdir().expect("a directory");
        let kernel = images.path().join("vmlinux");
        fs::write(&kernel, "no kernel").expect("a file");
        let domain = |stem: &str| {
            let mut domain = built_in(&unique_name(stem), ECHO);
            if reeve_tests::lab::inside_outer_guest() {
                domain.limits.pids = Some(64);
            }
            domain
        };
        let (web, other, dead) = (domain("web"), domain("other"), domain("dead"));
        let half = domain("half");
        let mut broken = domain("broken");
        broken.boot = BootSource::Kernel(KernelBoot {
            kernel,
            initrd: None,
            command_line: String::new(),
        });
        let renamed = Domain {
            name: unique_name("renamed").parse().expect("a name"),
            ..web.clone()
        };
        let all = [&web, &renamed, &other, &dead, &half, &broken];
        Self {
            all: all.into_iter().cloned().collect(),
            web,
            renamed,
            other,
            dead,
            half,
            broken,
            images,
        }
    }

    /// Lets an instance have the files of the cast.
    pub fn prepare(&self, daemon: &mut Daemon) -> Result<()> {
        let config = self.images.path().join("reeve.toml");
        let allowed = self.images.path().display();
        let text = format!("libvirt = false\nallowed_directories = [\"{allowed}\"]\n");
        fs::write(&config, text)?;
        daemon.argument(&format!("--config={}", config.display()));
        Ok(())
    }
}

type Ask = Box<dyn Fn(&mut Connection, &Cast) -> Result<(), CallError>>;
type Apply = Box<dyn Fn(&Cast, &mut World)>;

/// One call, and what there is after it.
pub struct Step {
    pub ask: Ask,
    pub apply: Apply,
    /// It is refused, and changes nothing.
    pub fails: bool,
    /// The domain has another worker after it.
    pub moves: bool,
    /// Its guest does it, in its own time.
    pub by_guest: bool,
}

/// The steps for the points of one operation.
pub struct Script {
    pub operation: &'static str,
    pub steps: fn() -> Vec<Step>,
}

type Pick = fn(&Cast) -> &Domain;

const WEB: Pick = |cast| &cast.web;
const RENAMED: Pick = |cast| &cast.renamed;
const OTHER: Pick = |cast| &cast.other;
const DEAD: Pick = |cast| &cast.dead;
const HALF: Pick = |cast| &cast.half;
const BROKEN: Pick = |cast| &cast.broken;

fn name(domain: &Domain) -> String {
    domain.name.to_string()
}

fn step(
    ask: impl Fn(&mut Connection, &Cast) -> Result<(), CallError> + 'static,
    apply: impl Fn(&Cast, &mut World) + 'static,
) -> Step {
    Step {
        ask: Box::new(ask),
        apply: Box::new(apply),
        fails: false,
        moves: false,
        by_guest: false,
    }
}

/// A step that changes one domain that is known.
fn change(
    of: Pick,
    ask: impl Fn(&mut Connection, &Domain) -> Result<(), CallError> + 'static,
    apply: impl Fn(&mut Known) + 'static,
) -> Step {
    step(
        move |connection, cast| ask(connection, of(cast)),
        move |cast, world| {
            if let Some(known) = world.get_mut(of(cast).name.as_str()) {
                apply(known);
            }
        },
    )
}

fn define(of: Pick, title: Option<&'static str>) -> Step {
    let title = title.map(str::to_owned);
    let wanted = title.clone();
    step(
        move |connection, cast| {
            let mut definition = Box::new(of(cast).clone());
            definition.labels.title.clone_from(&wanted);
            let only_new = false;
            connection
                .call(DomainDefine {
                    definition,
                    only_new,
                })
                .map(drop)
        },
        move |cast, world| {
            let known = world.entry(name(of(cast))).or_insert(Known {
                kept: None,
                run: Run::Off,
            });
            let autostart = known.kept.as_ref().and_then(|kept| kept.autostart);
            let mut definition = of(cast).clone();
            definition.labels.title.clone_from(&title);
            known.kept = Some(Kept {
                definition,
                autostart,
            });
        },
    )
}

fn start(of: Pick, paused: bool) -> Step {
    let options = StartOptions {
        paused,
        auto_destroy: false,
    };
    change(
        of,
        move |connection, domain| {
            let domain = named(domain.name.as_str());
            connection.call(DomainStart { domain, options }).map(drop)
        },
        move |known| known.run = if paused { Run::Paused } else { Run::Running(0) },
    )
}

/// Binds its vCPU, in the machine and in what is kept, or lets it run anywhere.
fn bind(of: Pick, cpu: Option<u32>) -> Step {
    let cpus: Option<CpuSet> = cpu.map(|cpu| cpu.to_string().parse().expect("a CPU"));
    let wanted = cpus.clone();
    change(
        of,
        move |connection, domain| {
            let vcpu = TuningChange::VcpuCpus {
                vcpu: 0,
                cpus: wanted.clone(),
            };
            connection.call(DomainTune {
                domain: named(domain.name.as_str()),
                changes: vec![vcpu],
                live: true,
                persistent: true,
            })
        },
        move |known| {
            if let Some(kept) = &mut known.kept {
                let pin = cpus.clone().map(|cpus| VcpuPin { vcpu: 0, cpus });
                kept.definition.pinning = pin.into_iter().collect();
            }
        },
    )
}

fn start_in_vain(of: Pick) -> Step {
    Step {
        fails: true,
        apply: Box::new(|_, _| {}),
        ..start(of, false)
    }
}

fn create(of: Pick) -> Step {
    step(
        move |connection, cast| {
            let call = DomainCreate {
                definition: Box::new(of(cast).clone()),
                options: StartOptions::default(),
            };
            connection.call(call).map(drop)
        },
        move |cast, world| {
            let running = Known {
                kept: None,
                run: Run::Running(0),
            };
            world.insert(name(of(cast)), running);
        },
    )
}

fn pause(of: Pick) -> Step {
    change(
        of,
        |connection, domain| {
            let domain = named(domain.name.as_str());
            connection.call(DomainPause { domain })
        },
        |known| known.run = Run::Paused,
    )
}

fn resume(of: Pick) -> Step {
    change(
        of,
        |connection, domain| {
            let domain = named(domain.name.as_str());
            connection.call(DomainResume { domain })
        },
        |known| known.run = Run::Running(0),
    )
}

fn upgrade(of: Pick) -> Step {
    let ask = |connection: &mut Connection, domain: &Domain| {
        let domain = named(domain.name.as_str());
        connection.call(DomainUpgrade { domain })
    };
    Step {
        moves: true,
        ..change(of, ask, |_| {})
    }
}

fn reset(of: Pick) -> Step {
    change(
        of,
        |connection, domain| {
            let domain = named(domain.name.as_str());
            connection.call(DomainReset { domain })
        },
        one_reset_more,
    )
}

fn one_reset_more(known: &mut Known) {
    if let Run::Running(resets) = &mut known.run {
        *resets += 1;
    }
}

fn reboot(of: Pick) -> Step {
    let ask = |connection: &mut Connection, domain: &Domain| {
        wait_for_guest(connection, domain.name.as_str())?;
        let domain = named(domain.name.as_str());
        connection.call(DomainReboot { domain })
    };
    Step {
        by_guest: true,
        ..change(of, ask, one_reset_more)
    }
}

fn shutdown(of: Pick) -> Step {
    let ask = |connection: &mut Connection, domain: &Domain| {
        wait_for_guest(connection, domain.name.as_str())?;
        let domain = named(domain.name.as_str());
        connection.call(DomainShutdown {
            domain,
            destroy_after_ms: Some(8000),
            for_host: false,
        })
    };
    Step {
        by_guest: true,
        ..change(of, ask, |known| known.run = Run::Off)
    }
}

fn destroy(of: Pick) -> Step {
    step(
        move |connection, cast| {
            let domain = named(of(cast).name.as_str());
            connection.call(DomainDestroy { domain })
        },
        move |cast, world| {
            let name = name(of(cast));
            match world.get_mut(&name) {
                Some(known) if known.kept.is_some() => known.run = Run::Off,
                _ => drop(world.remove(&name)),
            }
        },
    )
}

fn undefine(of: Pick) -> Step {
    step(
        move |connection, cast| {
            let domain = named(of(cast).name.as_str());
            connection.call(DomainUndefine { domain })
        },
        move |cast, world| {
            let name = name(of(cast));
            match world.get_mut(&name) {
                Some(known) if known.run != Run::Off => known.kept = None,
                _ => drop(world.remove(&name)),
            }
        },
    )
}

fn autostart(of: Pick, order: u32) -> Step {
    change(
        of,
        move |connection, domain| {
            let domain = named(domain.name.as_str());
            let order = Some(order);
            connection.call(DomainAutostartSet { domain, order })
        },
        move |known| {
            if let Some(kept) = &mut known.kept {
                kept.autostart = Some(order);
            }
        },
    )
}

fn label(of: Pick, title: &'static str) -> Step {
    change(
        of,
        move |connection, domain| {
            connection.call(DomainLabelSet {
                domain: named(domain.name.as_str()),
                label: LabelChange::Title(Some(title.to_owned())),
                live: true,
                persistent: true,
            })
        },
        move |known| {
            if let Some(kept) = &mut known.kept {
                kept.definition.labels.title = Some(title.to_owned());
            }
        },
    )
}

fn rename() -> Step {
    step(
        |connection, cast| {
            connection.call(DomainRename {
                domain: named(cast.web.name.as_str()),
                name: cast.renamed.name.clone(),
            })
        },
        |cast, world| {
            if let Some(mut known) = world.remove(cast.web.name.as_str()) {
                if let Some(kept) = &mut known.kept {
                    kept.definition.name = cast.renamed.name.clone();
                }
                world.insert(name(&cast.renamed), known);
            }
        },
    )
}

/// One script for each operation that a client asks for.
pub fn all() -> Vec<Script> {
    let script = |operation, steps| Script { operation, steps };
    vec![
        script("define", || {
            vec![
                define(WEB, None),
                define(WEB, Some("two")),
                autostart(WEB, 3),
                start(WEB, true),
                label(WEB, "three"),
                destroy(WEB),
                rename(),
                define(RENAMED, Some("four")),
            ]
        }),
        script("start", || {
            vec![
                define(BROKEN, None),
                start_in_vain(BROKEN),
                define(WEB, None),
                start(WEB, false),
                create(OTHER),
            ]
        }),
        script("pause", || {
            vec![
                define(WEB, None),
                start(WEB, false),
                pause(WEB),
                resume(WEB),
                pause(WEB),
            ]
        }),
        script("shutdown", || {
            vec![
                define(WEB, None),
                start(WEB, false),
                reboot(WEB),
                reset(WEB),
                shutdown(WEB),
            ]
        }),
        script("hand-over", || {
            vec![
                define(WEB, None),
                start(WEB, false),
                upgrade(WEB),
                pause(WEB),
                upgrade(WEB),
                resume(WEB),
            ]
        }),
        script("destroy", || {
            vec![
                define(WEB, None),
                start(WEB, false),
                destroy(WEB),
                create(OTHER),
                destroy(OTHER),
            ]
        }),
        script("undefine", || {
            vec![
                define(WEB, None),
                define(OTHER, None),
                start(OTHER, false),
                undefine(WEB),
                undefine(OTHER),
                destroy(OTHER),
            ]
        }),
        script("tune", || {
            vec![
                define(WEB, None),
                start(WEB, false),
                bind(WEB, Some(0)),
                bind(WEB, None),
                destroy(WEB),
            ]
        }),
    ]
}

/// What is there when the supervisor dies in its fourth start.
pub fn to_be_adopted() -> Vec<Step> {
    vec![
        define(WEB, None),
        start(WEB, false),
        define(OTHER, Some("paused")),
        start(OTHER, true),
        define(DEAD, None),
        start(DEAD, false),
        define(HALF, None),
        start(HALF, false),
    ]
}

/// What is there when the supervisor dies in its first destroy.
pub fn to_be_destroyed() -> Vec<Step> {
    vec![define(WEB, None), start(WEB, false), destroy(WEB)]
}
