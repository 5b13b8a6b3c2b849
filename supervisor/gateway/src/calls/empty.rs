//! Kinds of objects of which a host of Reeve has none: devices of the host, secrets.
//!
//! As [`super::absent`]: lists are empty, and a look-up finds nothing, so that a client which asks for all that
//! there is goes on.

use std::sync::Arc;

use uuid::Uuid;

use super::Context;
use super::failure::{Code, Failure};
use crate::wire::types::handles::{NodeDevice, Secret};
use crate::wire::types::network as net;
use crate::wire::types::{NODE_DEVICES_MAX, OBJECTS_MAX};
use crate::wire::xdr::List;

/// Counts, lists of names and lists of handles of what there is none of.
macro_rules! none {
    ($($count:ident $count_call:ty, $names:ident $names_call:ty, $max:expr;)*) => { $(
        pub(super) async fn $count(_: Arc<Context>, _: $count_call) -> Result<i32, Failure> {
            Ok(0)
        }

        pub(super) async fn $names(
            _: Arc<Context>,
            _: $names_call,
        ) -> Result<List<String, $max>, Failure> {
            Ok(List::default())
        }
    )* };
}

none! {
    node_device_count net::NodeNumOfDevices,
        node_device_names net::NodeListDevices, NODE_DEVICES_MAX;
    secret_count net::ConnectNumOfSecrets,
        secret_uuids net::ConnectListSecrets, OBJECTS_MAX;
}

macro_rules! none_at_all {
    ($($all:ident $call:ty => $reply:ident { $list:ident };)*) => { $(
        pub(super) async fn $all(_: Arc<Context>, _: $call) -> Result<net::$reply, Failure> {
            let $list = List::default();
            Ok(net::$reply { $list, ret: 0 })
        }
    )* };
}

none_at_all! {
    node_devices net::ConnectListAllNodeDevices => NodeDeviceList { devices };
    secrets net::ConnectListAllSecrets => SecretList { secrets };
}

fn none<T>(code: Code, why: String) -> Result<T, Failure> {
    Err(Failure::not_found(code, why))
}

pub(super) async fn node_device(
    _: Arc<Context>,
    call: net::NodeDeviceLookupByName,
) -> Result<NodeDevice, Failure> {
    let why = format!("no node device with matching name '{}'", call.name);
    none(Code::NoNodeDevice, why)
}

pub(super) async fn secret_by_uuid(
    _: Arc<Context>,
    call: net::SecretLookupByUuid,
) -> Result<Secret, Failure> {
    let uuid = Uuid::from_bytes(call.uuid);
    none(
        Code::NoSecret,
        format!("no secret with matching uuid '{uuid}'"),
    )
}

pub(super) async fn secret_by_usage(
    _: Arc<Context>,
    call: net::SecretLookupByUsage,
) -> Result<Secret, Failure> {
    let why = format!("no secret with matching usage '{}'", call.usage_id);
    none(Code::NoSecret, why)
}
