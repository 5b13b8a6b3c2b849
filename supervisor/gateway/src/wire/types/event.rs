//! Events: how a client asks for them, and what each carries. All but the end of a connection begin with the
//! number under which the client registered, which the server chose.

use super::handles::{Domain, Network, NodeDevice, Pool, Secret};
use super::params::Params;
use crate::wire::call::{calls, events, record};
use crate::wire::xdr::List;

record! {
    /// One end of a display's connection.
    #[derive(Eq)]
    GraphicsAddress { family: i32, node: String, service: String }
}

record! {
    /// Who is at the other end.
    #[derive(Eq)]
    GraphicsIdentity { kind: String, name: String }
}

calls! { Remote;
    /// Asks for the events of networks (0 lifecycle, 1 metadata), of all or of one.
    ConnectNetworkEventRegisterAny = 313 { event: i32, network: Option<Network> } -> i32;
    /// Asks no more.
    ConnectNetworkEventDeregisterAny = 314 { callback: i32 } -> ();
    /// Asks for an event of domains, of all or of one; the reply is the number it is sent under.
    ConnectDomainEventCallbackRegisterAny = 316 { event: i32, domain: Option<Domain> } -> i32;
    /// Asks no more.
    ConnectDomainEventCallbackDeregisterAny = 317 { callback: i32 } -> ();
    /// Asks for the events of pools (0 lifecycle, 1 refresh), of all or of one.
    ConnectStoragePoolEventRegisterAny = 368 { event: i32, pool: Option<Pool> } -> i32;
    /// Asks no more.
    ConnectStoragePoolEventDeregisterAny = 369 { callback: i32 } -> ();
    /// Asks for the events of devices of the host (0 lifecycle, 1 update), of all or of one.
    ConnectNodeDeviceEventRegisterAny = 374 { event: i32, device: Option<NodeDevice> } -> i32;
    /// Asks no more.
    ConnectNodeDeviceEventDeregisterAny = 375 { callback: i32 } -> ();
    /// Asks for the events of secrets (0 lifecycle, 1 value), of all or of one.
    ConnectSecretEventRegisterAny = 380 { event: i32, secret: Option<Secret> } -> i32;
    /// Asks no more.
    ConnectSecretEventDeregisterAny = 381 { callback: i32 } -> ();
}

events! { Remote;
    /// A network was defined (0), undefined (1), started (2) or stopped (3).
    NetworkEventLifecycle = 315 { callback: i32, network: Network, event: i32, detail: i32 };
    /// A domain came, went or changed state. Of one that has stopped, the id is -1.
    DomainEventCallbackLifecycle = 318 { callback: i32, domain: Domain, event: i32, detail: i32 };
    /// The guest started anew.
    DomainEventCallbackReboot = 319 { callback: i32, domain: Domain };
    /// The guest set its clock, so many s off.
    DomainEventCallbackRtcChange = 320 { callback: i32, domain: Domain, offset: i64 };
    /// The watchdog fired.
    DomainEventCallbackWatchdog = 321 { callback: i32, domain: Domain, action: i32 };
    /// A disk had an error: 0 nothing is done, 1 the domain is paused, 2 the guest is told.
    DomainEventCallbackIoError = 322 {
        callback: i32,
        domain: Domain,
        path: String,
        alias: String,
        action: i32,
    };
    /// Someone looks at a display: 0 connects, 1 is let in, 2 leaves.
    DomainEventCallbackGraphics = 323 {
        callback: i32,
        domain: Domain,
        phase: i32,
        local: GraphicsAddress,
        remote: GraphicsAddress,
        auth_scheme: String,
        subject: List<GraphicsIdentity, 20>,
    };
    /// A disk had an error, and why: "enospc", or nothing.
    DomainEventCallbackIoErrorReason = 324 {
        callback: i32,
        domain: Domain,
        path: String,
        alias: String,
        action: i32,
        reason: String,
    };
    /// The hypervisor cannot be spoken to.
    DomainEventCallbackControlError = 325 { callback: i32, domain: Domain };
    /// A job on a disk, named by its path.
    DomainEventCallbackBlockJob = 326 {
        callback: i32,
        domain: Domain,
        path: String,
        kind: i32,
        status: i32,
    };
    /// A medium was changed.
    DomainEventCallbackDiskChange = 327 {
        callback: i32,
        domain: Domain,
        old_path: Option<String>,
        new_path: Option<String>,
        alias: String,
        reason: i32,
    };
    /// A tray was opened (0) or closed (1).
    DomainEventCallbackTrayChange = 328 { callback: i32, domain: Domain, alias: String, reason: i32 };
    /// The guest woke.
    DomainEventCallbackPmwakeup = 329 { callback: i32, reason: i32, domain: Domain };
    /// The guest fell asleep.
    DomainEventCallbackPmsuspend = 330 { callback: i32, reason: i32, domain: Domain };
    /// The balloon changed; what is left, in KiB.
    DomainEventCallbackBalloonChange = 331 { callback: i32, domain: Domain, actual: u64 };
    /// The guest fell asleep on its disk.
    DomainEventCallbackPmsuspendDisk = 332 { callback: i32, reason: i32, domain: Domain };
    /// A device is gone.
    DomainEventCallbackDeviceRemoved = 333 { callback: i32, domain: Domain, alias: String };
    /// A job on a disk, named by its target.
    DomainEventBlockJob2 = 339 {
        callback: i32,
        domain: Domain,
        target: String,
        kind: i32,
        status: i32,
    };
    /// Tuning was changed.
    DomainEventCallbackTunable = 346 { callback: i32, domain: Domain, params: Params<2_048> };
    /// The agent came (1) or went (2).
    DomainEventCallbackAgentLifecycle = 348 { callback: i32, domain: Domain, state: i32, reason: i32 };
    /// A device was attached.
    DomainEventCallbackDeviceAdded = 354 { callback: i32, domain: Domain, alias: String };
    /// Memory is sent once more.
    DomainEventCallbackMigrationIteration = 359 { callback: i32, domain: Domain, iteration: i32 };
    /// The server ends the connection: 0 an error, 1 the end of the file, 2 no answer, 3 the client.
    ConnectEventConnectionClosed = 362 { reason: i32 };
    /// A job has ended.
    DomainEventCallbackJobCompleted = 363 { callback: i32, domain: Domain, params: Params<64> };
    /// The guest does not give a device up.
    DomainEventCallbackDeviceRemovalFailed = 367 { callback: i32, domain: Domain, alias: String };
    /// A pool was defined (0), undefined (1), started (2), stopped (3), created (4) or deleted (5).
    StoragePoolEventLifecycle = 370 { callback: i32, pool: Pool, event: i32, detail: i32 };
    /// It was looked what volumes a pool has.
    StoragePoolEventRefresh = 373 { callback: i32, pool: Pool };
    /// A device of the host came (0), went (1), was defined (2) or undefined (3).
    NodeDeviceEventLifecycle = 376 { callback: i32, device: NodeDevice, event: i32, detail: i32 };
    /// A device of the host changed.
    NodeDeviceEventUpdate = 377 { callback: i32, device: NodeDevice };
    /// The description (0), title (1) or an element of a namespace (2) was changed.
    DomainEventCallbackMetadataChange = 379 {
        callback: i32,
        domain: Domain,
        kind: i32,
        uri: Option<String>,
    };
    /// A secret was defined (0) or undefined (1).
    SecretEventLifecycle = 382 { callback: i32, secret: Secret, event: i32, detail: i32 };
    /// A secret's value was set.
    SecretEventValueChanged = 383 { callback: i32, secret: Secret };
    /// A disk has grown so far, and beyond by so much.
    DomainEventBlockThreshold = 385 {
        callback: i32,
        domain: Domain,
        device: String,
        path: Option<String>,
        threshold: u64,
        excess: u64,
    };
    /// Memory of the host failed.
    DomainEventMemoryFailure = 423 {
        callback: i32,
        domain: Domain,
        recipient: i32,
        action: i32,
        flags: u32,
    };
    /// A memory device has another size, in KiB.
    DomainEventMemoryDeviceSizeChange = 438 { callback: i32, domain: Domain, alias: String, size: u64 };
    /// The description (0), title (1) or an element of a namespace (2) of a network was changed.
    NetworkEventCallbackMetadataChange = 446 {
        callback: i32,
        network: Network,
        kind: i32,
        uri: Option<String>,
    };
}
