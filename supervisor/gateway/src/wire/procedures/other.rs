//! The programs beside the main one: QEMU's, LXC's and the daemon's own.

use super::Access::{Read, Write};
use super::Rank::{High, Low};
use super::State::{Served, ToCome, Unsupported};
use super::reason::{ADMIN, CONTAINERS, MONITOR, NO_QEMU};
use super::{Procedure, call_row, call_table, event_row};

/// Those of QEMU's program.
pub(super) const QEMU: &[Procedure] = &call_table! {
    1 DOMAIN_MONITOR_COMMAND virDomainQemuMonitorCommand (Write, Low) => ToCome(MONITOR);
    2 DOMAIN_ATTACH virDomainQemuAttach (Write, Low) => Unsupported(NO_QEMU);
    3 DOMAIN_AGENT_COMMAND virDomainQemuAgentCommand (Write, Low) => Served;
    4 CONNECT_DOMAIN_MONITOR_EVENT_REGISTER virConnectDomainQemuMonitorEventRegister (Write, High) => ToCome(MONITOR);
    5 CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER virConnectDomainQemuMonitorEventDeregister (Write, High) => ToCome(MONITOR);
    7 DOMAIN_MONITOR_COMMAND_WITH_FILES virDomainQemuMonitorCommandWithFiles (Write, Low) => Unsupported(NO_QEMU);
};

/// The events of QEMU's program.
pub(super) const QEMU_EVENTS: &[Procedure] = &[event_row(
    6,
    "DOMAIN_MONITOR_EVENT",
    "virConnectDomainQemuMonitorEventRegister",
    ToCome(MONITOR),
)];

/// Those of LXC's program.
pub(super) const LXC: &[Procedure] = &call_table! {
    1 DOMAIN_OPEN_NAMESPACE virDomainLxcOpenNamespace (Write, Low) => Unsupported(CONTAINERS);
};

/// Those of the daemon's own program.
pub(super) const ADMIN_CALLS: &[Procedure] = &call_table! {
    1 CONNECT_OPEN virAdmConnectOpen (Read, Low) => ToCome(ADMIN);
    2 CONNECT_CLOSE virAdmConnectClose (Read, Low) => ToCome(ADMIN);
    3 CONNECT_GET_LIB_VERSION virAdmConnectGetLibVersion (Read, Low) => ToCome(ADMIN);
    4 CONNECT_LIST_SERVERS virAdmConnectListServers (Read, Low) => ToCome(ADMIN);
    5 CONNECT_LOOKUP_SERVER virAdmConnectLookupServer (Read, Low) => ToCome(ADMIN);
    6 SERVER_GET_THREADPOOL_PARAMETERS virAdmServerGetThreadPoolParameters (Read, Low) => ToCome(ADMIN);
    7 SERVER_SET_THREADPOOL_PARAMETERS virAdmServerSetThreadPoolParameters (Write, Low) => ToCome(ADMIN);
    8 SERVER_LIST_CLIENTS virAdmServerListClients (Read, Low) => ToCome(ADMIN);
    9 SERVER_LOOKUP_CLIENT virAdmServerLookupClient (Read, Low) => ToCome(ADMIN);
    10 CLIENT_GET_INFO virAdmClientGetInfo (Read, Low) => ToCome(ADMIN);
    11 CLIENT_CLOSE virAdmClientClose (Write, Low) => ToCome(ADMIN);
    12 SERVER_GET_CLIENT_LIMITS virAdmServerGetClientLimits (Read, Low) => ToCome(ADMIN);
    13 SERVER_SET_CLIENT_LIMITS virAdmServerSetClientLimits (Write, Low) => ToCome(ADMIN);
    14 CONNECT_GET_LOGGING_OUTPUTS virAdmConnectGetLoggingOutputs (Read, Low) => ToCome(ADMIN);
    15 CONNECT_GET_LOGGING_FILTERS virAdmConnectGetLoggingFilters (Read, Low) => ToCome(ADMIN);
    16 CONNECT_SET_LOGGING_OUTPUTS virAdmConnectSetLoggingOutputs (Write, Low) => ToCome(ADMIN);
    17 CONNECT_SET_LOGGING_FILTERS virAdmConnectSetLoggingFilters (Write, Low) => ToCome(ADMIN);
    18 SERVER_UPDATE_TLS_FILES virAdmServerUpdateTlsFiles (Write, Low) => ToCome(ADMIN);
    19 CONNECT_SET_DAEMON_TIMEOUT virAdmConnectSetDaemonTimeout (Write, Low) => ToCome(ADMIN);
};
