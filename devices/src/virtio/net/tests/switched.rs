//! What a driver sees of a device that a switch serves, and what the switch is told of its queues.

use std::sync::Arc;

use super::*;
use crate::memory::GuestRam;
use crate::shared::lock;
use crate::virtio::rig::Rig;
use crate::virtio::testing::{Driver, RecordInterrupts, into, out};
use crate::virtio::vhost_user::script::{Act, BackEnd, FEATURES, PATIENCE, shared_ram, word};
use crate::virtio::vhost_user::{BackEndError, SharedMemory};

const MAC: MacAddress = [0x52, 0x54, 0, 1, 2, 3];
const GET_FEATURES: u32 = 1;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const SET_VRING_ENABLE: u32 = 18;
/// Where commands and their answers are in memory.
const COMMAND: u64 = 0x8000;
const ANSWER: u64 = 0x9000;

fn config(pairs: u16) -> SwitchedConfig {
    SwitchedConfig {
        mac: MAC,
        mtu: None,
        queue_size: 16,
        pairs,
    }
}

/// A switch that offers these features and serves so many pairs.
fn switch(features: u64, pairs: u64) -> (BackEnd, std::os::fd::OwnedFd) {
    BackEnd::start(move |told| match told.request {
        GET_FEATURES => Act::Send(word(GET_FEATURES, FEATURES | features)),
        GET_PROTOCOL_FEATURES => Act::Send(word(GET_PROTOCOL_FEATURES, u64::from(pairs > 1))),
        GET_QUEUE_NUM => Act::Send(word(GET_QUEUE_NUM, pairs)),
        _ => Act::Keep,
    })
}

fn connect(socket: std::os::fd::OwnedFd, queues: usize) -> Result<VhostUser, BackEndError> {
    let (_, map) = shared_ram();
    let memory = SharedMemory::new(&map).expect("shared memory");
    VhostUser::connect(socket, memory, queues, None, PATIENCE)
}

/// A device of two pairs whose driver uses both and the control queue.
struct Device {
    switch: BackEnd,
    _net: SwitchedNet,
    rig: Rig,
    ram: GuestRam,
    control: Driver,
    interrupts: Arc<RecordInterrupts>,
    kick: Arc<Event>,
}

impl Device {
    fn new() -> Self {
        let (switch, socket) = switch(F_MQ | F_CSUM | F_MRG_RXBUF, 4);
        let config = config(2);
        let back_end = connect(socket, config.served_queues()).expect("a switch");
        let mut net = SwitchedNet::new(config, back_end).expect("a device");
        let (ram, _) = shared_ram();
        let interrupts = Arc::new(RecordInterrupts::default());
        let mut drivers: Vec<Driver> = (0..5)
            .map(|index| Driver::new(&ram, 0x1000 + index * 0x1000, 16))
            .collect();
        let queues = (0..).zip(&drivers);
        let queues: Vec<_> = queues
            .map(|(index, driver)| Some(driver.running(index, &interrupts)))
            .collect();
        let kick = Arc::clone(&queues[4].as_ref().expect("there").kick);
        let start = Start {
            features: F_MQ | F_CTRL_VQ | F_MAC | F_STATUS | F_CSUM,
            queues,
            interrupts: Arc::clone(&interrupts) as _,
        };
        let mut workers = net.start(start).expect("started");
        assert_eq!(workers.len(), 1);
        Self {
            switch,
            _net: net,
            rig: Rig::new(workers.pop().expect("one")),
            ram,
            control: drivers.pop().expect("five"),
            interrupts,
            kick,
        }
    }

    fn command(&mut self, bytes: &[u8]) -> u8 {
        self.ram.write(COMMAND, bytes).expect("in RAM");
        self.ram.write(ANSWER, &[0x55]).expect("in RAM");
        let len = u32::try_from(bytes.len()).expect("short");
        self.control.add(&[out(COMMAND, len), into(ANSWER, 1)]);
        self.kick.signal();
        self.rig.run();
        assert_eq!(self.control.take_used().len(), 1);
        let mut answer = [0];
        self.ram.read(ANSWER, &mut answer).expect("in RAM");
        answer[0]
    }

    /// What the switch was told last of each of its queues, once it has been told so often.
    fn enabled(&self, times: usize) -> [u8; 4] {
        for _ in 0..6000 {
            let told = lock(&self.switch.told);
            let told: Vec<_> = told
                .iter()
                .filter(|told| told.request == SET_VRING_ENABLE)
                .collect();
            if told.len() >= times {
                assert_eq!(told.len(), times, "too often");
                let mut enabled = [0xff; 4];
                for told in told {
                    enabled[usize::from(told.body[0])] = told.body[4];
                }
                return enabled;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("it is not told");
    }
}

#[test]
fn a_driver_is_offered_what_the_switch_offers_and_the_device_s_own() {
    let (_switch, socket) = switch(F_CSUM | F_HOST_TSO4 | F_MQ | 1 << 14 | 1 << 26, 1);
    let config = SwitchedConfig {
        mtu: Some(1400),
        ..config(1)
    };
    let net = SwitchedNet::new(config, connect(socket, 2).expect("a switch")).expect("a device");
    assert_eq!(net.id(), DeviceId::Net);
    assert_eq!(
        net.features(),
        F_CSUM | F_HOST_TSO4 | F_MAC | F_STATUS | F_MTU
    );
    assert_eq!(net.queue_sizes(), [16, 16]);
    let mut space = [0xff; 16];
    net.read_config(0, &mut space);
    assert_eq!(space[..6], MAC);
    assert_eq!(space[6..], [1, 0, 1, 0, 0x78, 5, 0, 0, 0, 0]);
    net.read_config(u64::MAX, &mut space);
    assert_eq!(space, [0; 16]);
}

#[test]
fn a_switch_without_ring_features_is_offered_without_them() {
    let (_switch, socket) = BackEnd::start(|told| match told.request {
        GET_FEATURES => Act::Send(word(GET_FEATURES, 1 << 32 | 1 << 30)),
        _ => Act::Keep,
    });
    let net = SwitchedNet::new(config(1), connect(socket, 2).expect("a switch")).expect("made");
    assert_eq!(net.ring_features(), 0);
    let (_switch, socket) = switch(0, 1);
    let net = SwitchedNet::new(config(1), connect(socket, 2).expect("a switch")).expect("made");
    assert_eq!(net.ring_features(), 3 << 28);
}

#[test]
fn the_driver_says_how_many_pairs_are_served() {
    let mut device = Device::new();
    assert_eq!(device.enabled(4), [1, 1, 0, 0]);
    assert_eq!(device.command(&[4, 0, 2, 0]), OK);
    assert_eq!(device.enabled(6), [1, 1, 1, 1]);
    assert_eq!(device.command(&[4, 0, 2, 0]), OK);
    assert_eq!(device.command(&[4, 0, 1, 0]), OK);
    assert_eq!(device.enabled(8), [1, 1, 0, 0]);
    assert_eq!(device.rig.stop().len(), 5, "each queue is given back");
    assert!(!device.interrupts.broken());
}

#[test]
fn any_other_command_is_refused_and_changes_nothing() {
    let mut device = Device::new();
    let others: [&[u8]; 8] = [
        &[4, 0, 0, 0],
        &[4, 0, 3, 0],
        &[4, 0, 2, 1],
        &[4, 0, 2],
        &[4, 0, 2, 0, 0],
        &[4, 1, 2, 0],
        &[0, 0, 1],
        &[1, 1, 2, 0],
    ];
    for command in others {
        assert_eq!(device.command(command), ERR, "{command:?}");
    }
    assert_eq!(device.enabled(4), [1, 1, 0, 0]);
    assert!(!device.interrupts.broken());
    // One without room for its answer breaks its contract.
    device.control.add(&[out(COMMAND, 4)]);
    device.kick.signal();
    device.rig.run();
    assert!(device.interrupts.broken());
    assert_eq!(device.rig.stop().len(), 5);
}

#[test]
fn a_switch_that_goes_away_costs_the_guest_the_device_and_nothing_else() {
    let (mut switch, socket) = BackEnd::start(|told| match told.request {
        // The last of the session.
        SET_VRING_ENABLE if told.body[0] == 1 => Act::Leave,
        _ => Act::Keep,
    });
    let mut net = SwitchedNet::new(config(1), connect(socket, 2).expect("a switch")).expect("made");
    let (ram, _) = shared_ram();
    let interrupts = Arc::new(RecordInterrupts::default());
    let queues = |ram: &GuestRam| {
        let queue = |index: u16| {
            let driver = Driver::new(ram, 0x1000 + u64::from(index) * 0x1000, 16);
            Some(driver.running(index, &interrupts))
        };
        vec![queue(0), queue(1)]
    };
    let start = || Start {
        features: F_MAC,
        queues: queues(&ram),
        interrupts: Arc::clone(&interrupts) as _,
    };
    let mut rig = Rig::new(net.start(start()).expect("started").pop().expect("one"));
    switch.join();
    rig.run_until(|| interrupts.broken());
    assert_eq!(rig.run(), 0, "it is not told of for ever");
    assert_eq!(rig.stop().len(), 2);
    let again = net.start(start()).map(drop);
    assert!(matches!(again, Err(StartError::Host(_))));
}

#[test]
fn a_switch_of_one_pair_serves_no_device_of_two() {
    let (_switch, socket) = switch(F_MQ, 1);
    let refused = connect(socket, 4).map(drop);
    assert!(matches!(refused, Err(BackEndError::Lacks(_))));
    // One that says it can and offers no driver more.
    let (_switch, socket) = switch(0, 4);
    let refused = SwitchedNet::new(config(2), connect(socket, 4).expect("a switch"));
    assert!(matches!(refused, Err(NetError::Config("number of queues"))));
    let (_switch, socket) = BackEnd::start(|told| match told.request {
        GET_FEATURES => Act::Send(word(GET_FEATURES, FEATURES | F_MQ)),
        GET_PROTOCOL_FEATURES => Act::Send(word(GET_PROTOCOL_FEATURES, 1)),
        GET_QUEUE_NUM => Act::Send(word(GET_QUEUE_NUM, 1)),
        _ => Act::Keep,
    });
    let refused = connect(socket, 4).map(drop);
    assert_eq!(refused, Err(BackEndError::Lacks("so many queues")));
}

#[test]
fn a_driver_of_one_pair_needs_no_control_queue() {
    let (switch, socket) = switch(F_MQ, 2);
    let mut net = SwitchedNet::new(config(2), connect(socket, 4).expect("a switch")).expect("made");
    let (ram, _) = shared_ram();
    let interrupts = Arc::new(RecordInterrupts::default());
    let queue = |index: u16| {
        let driver = Driver::new(&ram, 0x1000 + u64::from(index) * 0x1000, 16);
        Some(driver.running(index, &interrupts))
    };
    let start = |queues| Start {
        features: F_MAC,
        queues,
        interrupts: Arc::clone(&interrupts) as _,
    };
    let missing = net
        .start(start(vec![queue(0), None, None, None, None]))
        .map(drop);
    assert!(matches!(missing, Err(StartError::MissingQueue(0))));
    let queues = vec![queue(0), queue(1), queue(2), None, None];
    let mut workers = net.start(start(queues)).expect("started");
    let mut rig = Rig::new(workers.pop().expect("one"));
    rig.run();
    assert_eq!(rig.stop().len(), 3);
    let told = lock(&switch.told);
    let enabled = told.iter().filter(|told| told.request == SET_VRING_ENABLE);
    assert_eq!(enabled.count(), 2, "of its pair");
}
