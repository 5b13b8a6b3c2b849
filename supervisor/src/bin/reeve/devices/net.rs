//! `--net`.

use std::path::PathBuf;

use reeve_ipc::model::{DirectMode, InterfaceName, NetworkName, Nic, NicSource};

use super::list::List;

pub(super) fn net(text: &str) -> Result<Nic, String> {
    let mut list = List::read(text);
    let bridge: Option<InterfaceName> = list.take("bridge")?;
    let tap: Option<InterfaceName> = list.take("tap")?;
    let switch: Option<PathBuf> = list.take("switch")?;
    let network: Option<NetworkName> = list.take("network")?;
    let direct: Option<InterfaceName> = list.take("direct")?;
    let mode: Option<DirectMode> = list.take("mode")?;
    if mode.is_some() && direct.is_none() {
        return Err("mode= is of direct=".to_owned());
    }
    let port_group: Option<String> = list.take("group")?;
    if port_group.is_some() && network.is_none() {
        return Err("group= is of network=".to_owned());
    }
    let said = [
        bridge.map(NicSource::Bridge),
        tap.map(NicSource::Tap),
        switch.map(NicSource::Switch),
        list.flag("user").then_some(NicSource::User),
        network.map(|network| NicSource::Network {
            network,
            port_group,
            port: None,
        }),
        direct.map(|device| NicSource::Direct {
            device,
            mode: mode.unwrap_or(DirectMode::Bridge),
        }),
        list.flag("none").then_some(NicSource::Nothing),
    ];
    let mut said = said.into_iter().flatten();
    let (Some(source), None) = (said.next(), said.next()) else {
        let one = "write one of bridge=NAME, tap=NAME, switch=PATH, network=NAME, direct=DEVICE, \
                   user and none";
        return Err(one.to_owned());
    };
    let mut nic = Nic::new(source);
    nic.mac = list.take("mac")?;
    nic.target = list.take("target")?;
    list.set("queues", &mut nic.queues)?;
    nic.mtu = list.take("mtu")?;
    nic.link_up = match list.take::<String>("link")?.as_deref() {
        None | Some("up") => true,
        Some("down") => false,
        Some(other) => return Err(format!("link: '{other}' is neither up nor down")),
    };
    list.set("driver", &mut nic.driver)?;
    nic.isolated = list.flag("isolated");
    nic.trust_guest = list.flag("trust-guest");
    nic.address = list.address()?;
    nic.addresses = list.all("ip")?;
    list.end()?;
    Ok(nic)
}
