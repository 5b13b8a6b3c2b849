//! A guest's agent, and channels: the other end of each is a thread of the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reeve_ipc::api::call::{AnswerBody, CallBody};
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::{AgentTimeout, DeviceStats, DomainState, RunningReason};
use reeve_ipc::device::{DeviceFigures, PortFigures};
use reeve_ipc::model::DeviceName;

use super::events::{next, register};
use super::harness::{Act, Client, handle};
use super::one::{One, definition};
use crate::wire::frame::{Kind, Program, Status};
use crate::wire::types::event::DomainEventCallbackAgentLifecycle;
use crate::wire::types::handles::Domain;
use crate::wire::types::params::Value;
use crate::wire::types::qemu::QemuDomainAgentCommand;
use crate::wire::types::{device, guest, inspect, lifecycle, tuning};

const AGENT: &str = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
    <disk type='file' device='disk'><source file='/d.raw'/><target dev='vda' bus='virtio'/></disk>";

/// What the agent says to a line, with what is sent besides; nothing, to be silent.
type Says = fn(&str) -> Option<Vec<u8>>;

/// Whether the guest has the port open.
const OPEN: bool = true;

/// A client of a domain whose guest's agent says that; and what the agent was asked.
fn host(says: Says, open: bool) -> (Client, Domain, Arc<Mutex<Vec<String>>>) {
    let mut one = One::running(definition("", AGENT));
    let running = one.running.as_ref().unwrap();
    let placed = running.devices.placed_ports();
    let ports = placed.into_iter().map(|(place, device)| DeviceStats {
        device,
        slot: place.slot,
        host: None,
        figures: DeviceFigures::Port(PortFigures {
            number: place.port.unwrap(),
            guest_open: open,
            connected: false,
        }),
    });
    one.stats = ports.collect();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&asked);
    let client = Client::open(move |call| match call {
        CallBody::DomainChannel(call) => {
            assert_eq!(call.channel, "org.qemu.guest_agent.0");
            let (ours, given) = UnixStream::pair().unwrap();
            let heard = Arc::clone(&heard);
            std::thread::spawn(move || converse(ours, says, &heard));
            Act::Fds(AnswerBody::DomainChannel(()), vec![given.into()])
        }
        call => one.act(call),
    });
    (client, handle("a", 5), asked)
}

fn converse(stream: UnixStream, says: Says, heard: &Mutex<Vec<String>>) {
    let mut write = stream.try_clone().unwrap();
    // Of a conversation before, as far as it came.
    let _ = write.write_all(b"ult\": 7}\n{\"return\": 5}\n");
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader
        .read_until(b'\n', &mut line)
        .is_ok_and(|length| length > 0)
    {
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        let synced = text
            .rsplit_once("\"id\":")
            .filter(|_| text.contains("guest-sync-delimited"))
            .map(|(_, id)| id.trim_end_matches('}').to_owned());
        let answer = match synced {
            Some(id) => {
                assert_eq!(line.first(), Some(&0xFF));
                let mut answer = vec![0xFF];
                answer.extend_from_slice(format!("{{\"return\": {id}}}\n").as_bytes());
                says("sync").map(|_| answer)
            }
            None => {
                heard.lock().unwrap().push(text.clone());
                says(&text)
            }
        };
        if let Some(answer) = answer {
            let _ = write.write_all(&answer);
        }
        line.clear();
    }
}

#[test]
fn a_guest_that_opens_its_agents_channel_or_closes_it_is_told_of() {
    let one = One::off(definition("", AGENT));
    let running = one.kept.clone();
    let (mut client, _, shared) = one.client();
    let agent = register(&mut client, 18, None);
    shared.lock().unwrap().running = running;
    let booted = DomainState::Running(RunningReason::Booted);
    client.supervisor.event("a", EventKind::State(booted));
    for (channel, open) in [
        ("org.test.0", true),
        ("org.qemu.guest_agent.0", true),
        ("org.qemu.guest_agent.0", false),
    ] {
        let channel = channel.to_owned();
        let changed = EventKind::ChannelChanged { channel, open };
        client.supervisor.event("a", changed);
    }
    // Of its start; then by the guest.
    for (state, reason) in [(2, 1), (1, 2), (2, 2)] {
        let told: DomainEventCallbackAgentLifecycle = next(&mut client);
        assert_eq!(told.callback, agent);
        assert_eq!((told.state, told.reason), (state, reason));
        assert_eq!(told.domain.name, "a");
    }
    client.silence(50);
}

#[test]
fn a_running_domain_shows_whether_its_guest_has_a_channel_open() {
    for (open, state) in [(OPEN, "connected"), (false, "disconnected")] {
        let (mut client, domain, _) = host(|_| None, open);
        let shown = |client: &mut Client, flags| {
            client.ask(&inspect::DomainGetXmlDesc {
                domain: domain.clone(),
                flags,
            })
        };
        let wanted = format!("name='org.qemu.guest_agent.0' state='{state}'/>");
        assert!(shown(&mut client, 0).contains(&wanted));
        // What is kept has none (VIR_DOMAIN_XML_INACTIVE).
        assert!(!shown(&mut client, 2).contains("state="));
    }
}

fn command(domain: &Domain, command: &str, timeout: i32) -> QemuDomainAgentCommand {
    QemuDomainAgentCommand {
        domain: domain.clone(),
        command: command.to_owned(),
        timeout,
        flags: 0,
    }
}

#[test]
fn a_command_goes_as_one_line_and_its_answer_comes_back() {
    let (mut client, domain, asked) =
        host(|_| Some(b"{\"return\": {\"a\": [1]}}\n".to_vec()), OPEN);
    let ask = command(&domain, "{\"execute\":\n \"guest-ping\"}", -1);
    let mut packet = Vec::new();
    crate::wire::frame::call(&mut packet, 77, &ask).unwrap();
    client.write(&packet);
    let got = client.next().unwrap();
    assert_eq!(got.header.program, Program::Qemu.number());
    let answer: Option<String> = crate::wire::xdr::decode(&got.payload).unwrap();
    assert_eq!(answer.as_deref(), Some("{\"return\":{\"a\":[1]}}"));
    assert_eq!(*asked.lock().unwrap(), ["{\"execute\":\"guest-ping\"}"]);
    assert_eq!(client.refused(&command(&domain, "guest-ping", -1)).code, 8);
    assert_eq!(client.refused(&command(&domain, "{}", -3)).code, 8);
}

#[test]
fn an_answer_of_many_small_objects_comes_back_as_it_is() {
    let says: Says = |_| {
        let many = "{\"\": 0},".repeat(100_000);
        Some(format!("{{\"return\": [{many}{{}}]}}\n").into_bytes())
    };
    let (mut client, domain, _) = host(says, OPEN);
    let ask = command(&domain, "{\"execute\":\"guest-get-vcpus\"}", -1);
    let mut packet = Vec::new();
    crate::wire::frame::call(&mut packet, 77, &ask).unwrap();
    client.write(&packet);
    let got = client.next().unwrap();
    let answer: Option<String> = crate::wire::xdr::decode(&got.payload).unwrap();
    let answer = answer.unwrap();
    assert!(answer.starts_with("{\"return\":[{\"\":0},{\"\":0},") && answer.ends_with(",{}]}"));
    assert_eq!(answer.len(), 7 * 100_000 + "{\"return\":[{}]}".len());
}

#[test]
fn an_agent_that_refuses_lies_or_is_not_there_is_an_error() {
    let ping = "{\"execute\":\"guest-ping\"}";
    let refusal: Says = |_| {
        let error = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u0007pe\"}}\n";
        Some(error.as_bytes().to_vec())
    };
    let (mut client, domain, _) = host(refusal, OPEN);
    let said = client.refused(&command(&domain, ping, -1));
    assert_eq!(said.code, 1);
    assert!(said.message.ends_with("no\\u{7}pe"), "{said:?}");
    let time = guest::DomainGetTime {
        domain: domain.clone(),
        flags: 0,
    };
    assert!(client.refused(&time).message.contains("guest-get-time"));
    for says in [
        (|_| Some(b"[[[[\n".to_vec())) as Says,
        |_| Some(b"{\"return\": \"noon\"}\n".to_vec()),
        |_| Some(b"{}\n".to_vec()),
        |_| {
            Some(
                "[".repeat(300_000)
                    .into_bytes()
                    .into_iter()
                    .chain(*b"\n")
                    .collect(),
            )
        },
        |_| Some(vec![b' '; 3 << 20]),
    ] {
        let (mut client, domain, _) = host(says, OPEN);
        let time = guest::DomainGetTime { domain, flags: 0 };
        assert_eq!(client.refused(&time).code, 1);
    }
    // It does not answer; its guest has not opened the port; there is no channel for it.
    let (mut client, domain, _) = host(|line| (line == "sync").then(Vec::new), OPEN);
    let said = client.refused(&command(&domain, ping, 1));
    assert_eq!(said.code, 86);
    assert!(
        said.message.contains("agent not available for now"),
        "{said:?}"
    );
    let (mut client, domain, _) = host(|_| None, OPEN);
    let said = client.refused(&command(&domain, ping, 0));
    assert_eq!(said.code, 86);
    assert!(
        said.message.contains("agent not available for now"),
        "{said:?}"
    );
    // A refusal of another form is one all the same.
    let (mut client, domain, _) = host(|_| Some(b"{\"error\": [1]}\n".to_vec()), OPEN);
    let said = client.refused(&command(&domain, ping, -1));
    assert!(said.message.contains("unable to execute"), "{said:?}");
    let (mut client, domain, _) = host(|_| None, false);
    let said = client.refused(&command(&domain, ping, -1));
    assert_eq!(said.code, 86);
    assert!(said.message.contains("not connected"), "{said:?}");
    let (mut client, domain, _) = One::running(definition("", "")).client();
    assert_eq!(client.refused(&command(&domain, ping, -1)).code, 74);
    let (mut client, domain, _) = One::off(definition("", AGENT)).client();
    assert_eq!(client.refused(&command(&domain, ping, -1)).code, 55);
}

#[test]
fn an_agent_is_waited_for_as_long_as_was_said_of_its_domain() {
    let only_synced: Says = |line| (line == "sync").then(Vec::new);
    let set = |domain: &Domain, timeout| guest::DomainAgentSetResponseTimeout {
        domain: domain.clone(),
        timeout,
        flags: 0,
    };
    let (mut client, domain, asked) = host(only_synced, OPEN);
    let time = guest::DomainGetTime {
        domain: domain.clone(),
        flags: 0,
    };
    let begun = Instant::now();
    assert_eq!(client.ask(&set(&domain, 1)), 0);
    let said = client.refused(&time);
    assert_eq!(said.code, 86);
    assert!(said.message.contains("not available for now"), "{said:?}");
    // Or two minutes, as where nobody says.
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(asked.lock().unwrap().len(), 1);
    // With no time at all it is not asked, whatever time the question itself has.
    assert_eq!(client.ask(&set(&domain, 0)), 0);
    assert_eq!(client.refused(&time).code, 86);
    let ping = command(&domain, "{\"execute\":\"guest-ping\"}", 600);
    assert_eq!(client.refused(&ping).code, 86);
    assert_eq!(asked.lock().unwrap().len(), 1);
    for timeout in [-3, i32::MIN] {
        let said = client.refused(&set(&domain, timeout));
        assert_eq!(said.code, 8);
        assert!(said.message.contains("less than the minimum '-2'"));
    }
    let flags = guest::DomainAgentSetResponseTimeout {
        flags: 1,
        ..set(&domain, 1)
    };
    assert_eq!(client.refused(&flags).code, 8);

    // The supervisor is told, of a domain that is off as well, and one that answers is heard whatever it is.
    let (mut client, off, one) = One::off(definition("", AGENT)).client();
    for (timeout, told) in [
        (-2, AgentTimeout::Block),
        (-1, AgentTimeout::Default),
        (7, AgentTimeout::Seconds(7)),
        (i32::MAX, AgentTimeout::Seconds(0x7FFF_FFFF)),
    ] {
        client.ask(&set(&off, timeout));
        assert_eq!(one.lock().unwrap().agent_timeout, Some(told));
        let (mut client, domain, _) = host(guest, OPEN);
        client.ask(&set(&domain, timeout));
        client.ask(&time);
    }
}

/// A guest as it may be.
fn guest(line: &str) -> Option<Vec<u8>> {
    let answer = if line.contains("guest-get-time\"") {
        "1700000000123456789"
    } else if line.contains("guest-set-vcpus") {
        "1"
    } else if line.contains("guest-get-vcpus") {
        "[{\"logical-id\": 1, \"online\": true, \"can-offline\": true},
          {\"logical-id\": 0, \"online\": true, \"can-offline\": false},
          {\"logical-id\": 2, \"online\": false, \"can-offline\": true}]"
    } else if line.contains("guest-fsfreeze") {
        "3"
    } else if line.contains("guest-get-host-name") {
        "{\"host-name\": \"here\"}"
    } else if line.contains("guest-network-get-interfaces") {
        "[{\"name\": \"lo\"}, {\"name\": \"eth0\", \"hardware-address\": \"52:54:00:00:00:01\",
           \"ip-addresses\": [{\"ip-address-type\": \"ipv4\", \"ip-address\": \"10.0.0.1\", \"prefix\": 8},
             {\"ip-address-type\": \"ipx\", \"ip-address\": \"?\", \"prefix\": 1}]},
          {\"name\": \"eth0:1\", \"ip-addresses\":
             [{\"ip-address-type\": \"ipv6\", \"ip-address\": \"::1\", \"prefix\": 128}]}]"
    } else if line.contains("guest-get-fsinfo") {
        "[{\"name\": \"vda1\", \"mountpoint\": \"/\", \"type\": \"ext4\", \"total-bytes\": 9, \"used-bytes\": 4,
           \"disk\": [{\"pci-controller\": {\"domain\": 0, \"bus\": 0, \"slot\": SLOT, \"function\": 0}}]}]"
    } else if line.contains("guest-get-osinfo") {
        "{\"id\": \"debian\", \"version-id\": \"12\", \"odd\": 1}"
    } else if line.contains("guest-get-users") {
        let error = "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such thing\"}}\n";
        return Some(error.as_bytes().to_vec());
    } else if line.contains("guest-get-timezone") {
        "{\"zone\": \"UTC\", \"offset\": 0}"
    } else {
        "{}"
    };
    let slot = definition("", AGENT).devices.disks[0].address.unwrap();
    let answer = answer.replace("SLOT", &slot.number().to_string());
    let answer = answer.replace('\n', " ");
    Some(format!("{{\"return\": {answer}}}\n").into_bytes())
}

#[test]
fn what_a_guest_says_of_itself_is_told_in_libvirts_words() {
    let (mut client, domain, _) = host(guest, OPEN);
    let flags = 0;
    let time = client.ask(&guest::DomainGetTime {
        domain: domain.clone(),
        flags,
    });
    assert_eq!((time.seconds, time.nseconds), (1_700_000_000, 123_456_789));
    let name = client.ask(&guest::DomainGetHostname {
        domain: domain.clone(),
        flags,
    });
    assert_eq!(name, "here");
    let addresses = |source| guest::DomainInterfaceAddresses {
        domain: domain.clone(),
        source,
        flags,
    };
    let told = client.ask(&addresses(1)).0;
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].name, "eth0");
    let both: Vec<_> = told[1]
        .addresses
        .0
        .iter()
        .map(|address| (address.kind, address.address.as_str(), address.prefix))
        .collect();
    assert_eq!(both, [(0, "10.0.0.1", 8), (1, "::1", 128)]);
    assert!(client.ask(&addresses(0)).0.is_empty());
    for source in [3, 4] {
        assert_eq!(client.refused(&addresses(source)).code, 74);
    }
    let systems = client.ask(&guest::DomainGetFsinfo {
        domain: domain.clone(),
        flags,
    });
    assert_eq!(systems.ret, 1);
    assert_eq!(systems.info.0[0].aliases.0, ["vda"]);
    let vcpus = client.ask(&guest::DomainGetGuestVcpus {
        domain: domain.clone(),
        flags,
    });
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    for (name, set) in [("vcpus", "0-2"), ("online", "0-1"), ("offlinable", "1-2")] {
        assert_eq!(vcpus.value(name).cloned(), text(set));
    }
    let info = |types| guest::DomainGetGuestInfo {
        domain: domain.clone(),
        types,
        flags,
    };
    let told = client.ask(&info(0));
    for (name, value) in [
        ("os.id", "debian"),
        ("os.version-id", "12"),
        ("timezone.name", "UTC"),
        ("hostname", "here"),
        ("fs.0.mountpoint", "/"),
        ("fs.0.disk.0.alias", "vda"),
        ("if.1.hwaddr", "52:54:00:00:00:01"),
        ("if.1.addr.2.addr", "::1"),
    ] {
        assert_eq!(told.value(name).cloned(), text(value), "{name}");
    }
    assert_eq!(told.value("os.odd"), None);
    assert_eq!(told.value("user.count"), None);
    // What is asked for by name and not known is an error.
    assert_eq!(client.refused(&info(1)).code, 1);
    assert_eq!(client.refused(&info(1 << 20)).code, 8);
}

#[test]
fn what_a_guest_is_to_do_is_asked_of_its_agent() {
    let (mut client, domain, asked) = host(guest, OPEN);
    let flags = 0;
    client.ask(&guest::DomainSetTime {
        domain: domain.clone(),
        seconds: 2,
        nseconds: 5,
        flags,
    });
    client.ask(&guest::DomainSetTime {
        domain: domain.clone(),
        seconds: 0,
        nseconds: 0,
        flags: 1,
    });
    let mountpoints = vec!["/".to_owned()].into();
    let frozen = client.ask(&guest::DomainFsfreeze {
        domain: domain.clone(),
        mountpoints,
        flags,
    });
    assert_eq!(frozen, 3);
    let mountpoints = Vec::new().into();
    client.ask(&guest::DomainFsthaw {
        domain: domain.clone(),
        mountpoints,
        flags,
    });
    client.ask(&guest::DomainFstrim {
        domain: domain.clone(),
        mountpoint: None,
        minimum: 4096,
        flags,
    });
    client.ask(&guest::DomainSetUserPassword {
        domain: domain.clone(),
        user: Some("root".to_owned()),
        password: Some("secret".to_owned()),
        flags,
    });
    client.ask(&lifecycle::DomainShutdownFlags {
        domain: domain.clone(),
        flags: 2,
    });
    client.ask(&lifecycle::DomainReboot {
        domain: domain.clone(),
        flags: 2,
    });
    client.ask(&guest::DomainSetGuestVcpus {
        domain: domain.clone(),
        cpumap: "2".to_owned(),
        state: 1,
        flags,
    });
    let count = client.ask(&tuning::DomainGetVcpusFlags {
        domain: domain.clone(),
        flags: 8,
    });
    assert_eq!(count, 2);
    client.ask(&tuning::DomainSetVcpusFlags {
        domain: domain.clone(),
        nvcpus: 1,
        flags: 8,
    });
    let asked = asked.lock().unwrap();
    let lines: Vec<&str> = asked
        .iter()
        .map(String::as_str)
        .filter(|line| !line.contains("guest-get-vcpus"))
        .collect();
    let wanted = [
        r#"{"arguments":{"time":2000000005},"execute":"guest-set-time"}"#,
        r#"{"execute":"guest-set-time"}"#,
        r#"{"arguments":{"mountpoints":["/"]},"execute":"guest-fsfreeze-freeze-list"}"#,
        r#"{"execute":"guest-fsfreeze-thaw"}"#,
        r#"{"arguments":{"minimum":4096},"execute":"guest-fstrim"}"#,
        r#"{"arguments":{"crypted":false,"password":"c2VjcmV0","username":"root"},"execute":"guest-set-user-password"}"#,
        r#"{"arguments":{"mode":"powerdown"},"execute":"guest-shutdown"}"#,
        r#"{"arguments":{"mode":"reboot"},"execute":"guest-shutdown"}"#,
        r#"{"arguments":{"vcpus":[{"logical-id":2,"online":true}]},"execute":"guest-set-vcpus"}"#,
        r#"{"arguments":{"vcpus":[{"logical-id":1,"online":false}]},"execute":"guest-set-vcpus"}"#,
    ];
    assert_eq!(lines, wanted);
}

#[test]
fn a_channel_is_a_stream_of_its_own() {
    let (mut client, domain, _) = host(|_| None, OPEN);
    let open = |name: Option<&str>| device::DomainOpenChannel {
        domain: domain.clone(),
        name: name.map(str::to_owned),
        flags: 0,
    };
    assert_eq!(client.refused(&open(Some("org.none.0"))).code, 1);
    for name in [None, Some("org.qemu.guest_agent.0"), Some("channel0")] {
        let serial = client.send(&open(name));
        client.answer(serial).reply::<device::DomainOpenChannel>();
        let got = client.answer(serial);
        assert_eq!((got.header.kind, got.header.procedure), (Kind::Stream, 296));
        assert_eq!(got.header.status, Status::Continue);
        assert!(got.payload.starts_with(b"ult"), "{got:?}");
        client.packet(Program::Remote.number(), 1, 296, 3, serial, 0, b"");
        let mut end = client.answer(serial);
        while end.header.status == Status::Continue {
            end = client.answer(serial);
        }
        assert_eq!(end.header.status, Status::Ok);
    }
    // Nobody else is asked for one.
    let names = client.supervisor.seen.lock().unwrap().len();
    assert!(names > 3, "{:?}", DeviceName::Channel("x".to_owned()));
    let mut rest = [0; 1];
    client.socket.set_nonblocking(true).unwrap();
    assert!(client.socket.read(&mut rest).is_err());
}

#[test]
fn keys_of_a_user_are_had_and_set() {
    let says: Says = |line| {
        let answer = match line.contains("get-authorized-keys") {
            true => "{\"return\": {\"keys\": [\"ssh-ed25519 AAAA a@b\"]}}\n",
            false => "{\"return\": {}}\n",
        };
        Some(answer.as_bytes().to_vec())
    };
    let (mut client, domain, asked) = host(says, OPEN);
    let keys = client.ask(&guest::DomainAuthorizedSshKeysGet {
        domain: domain.clone(),
        user: "root".to_owned(),
        flags: 0,
    });
    assert_eq!(keys.0, ["ssh-ed25519 AAAA a@b"]);
    let set = |keys: &[&str], flags| guest::DomainAuthorizedSshKeysSet {
        domain: domain.clone(),
        user: "root".to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        flags,
    };
    client.ask(&set(&[], 0));
    client.ask(&set(&["k"], 1));
    client.ask(&set(&["k"], 2));
    for (keys, flags) in [(&[][..], 1), (&[][..], 2), (&["k"][..], 3)] {
        assert_eq!(client.refused(&set(keys, flags)).code, 8);
    }
    let asked = asked.lock().unwrap();
    let said = |index: usize| -> serde_json::Value { serde_json::from_str(&asked[index]).unwrap() };
    assert_eq!(said(1)["execute"], "guest-ssh-add-authorized-keys");
    assert_eq!(said(1)["arguments"]["reset"], true);
    assert_eq!(said(2)["arguments"]["reset"], false);
    assert_eq!(said(3)["execute"], "guest-ssh-remove-authorized-keys");
    assert_eq!(said(3)["arguments"]["keys"][0], "k");
    assert_eq!(asked.len(), 4);
}

#[test]
fn no_guest_is_put_to_sleep_that_nobody_could_wake() {
    let says: Says = |_| Some(b"{\"return\": {}}\n".to_vec());
    let (mut client, domain, asked) = host(says, OPEN);
    let suspend = |target, duration| lifecycle::DomainPmSuspendForDuration {
        domain: domain.clone(),
        target,
        duration,
        flags: 0,
    };
    for target in 0..3 {
        let said = client.refused(&suspend(target, 0));
        let why = "Operation not supported: Domain does not have suspend support";
        assert_eq!((said.code, said.message.as_str()), (84, why));
    }
    assert_eq!(client.refused(&suspend(0, 5)).code, 74);
    assert_eq!(client.refused(&suspend(9, 0)).code, 74);
    assert!(asked.lock().unwrap().is_empty());
    let wake = lifecycle::DomainPmWakeup { domain, flags: 0 };
    assert_eq!(client.refused(&wake).code, 1);
    let (mut client, domain, _) = One::off(definition("", AGENT)).client();
    let wake = lifecycle::DomainPmWakeup { domain, flags: 0 };
    assert_eq!(client.refused(&wake).code, 55);
}
