//! What a real `virsh` says of how much of the host a domain of a real `reeved` may use: set while it runs and in what
//! is kept, read back, and gone through a restart of the daemon.

use std::fs;

use anyhow::{Context, Result, ensure};
use reeve_ipc::api::call::DomainGet;
use reeve_ipc::api::view::AgentTimeout;
use reeve_tests::daemon::named;
use reeve_tests::libvirt::{Libvirt, complains, shows};

/// A domain with a disk and an interface that is connected to nothing the host has.
fn document(host: &Libvirt, elements: &str) -> Result<String> {
    let image = host.files().join("disk.raw");
    fs::File::create(&image)?.set_len(1 << 20)?;
    let text = format!(
        "<domain type='kvm'><name>web</name>\
           <metadata>\
             <reeve:domain xmlns:reeve='urn:x-reeve:domain:1'><reeve:boot source='built-in'/></reeve:domain>\
           </metadata>\
           <memory unit='MiB'>64</memory><vcpu>2</vcpu>{elements}\
           <os><type arch='x86_64' machine='reeve'>hvm</type><cmdline>mode=echo</cmdline></os>\
           <devices><disk type='file' device='disk'><driver name='qemu' type='raw'/>\
             <source file='{}'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
        image.display()
    );
    let path = host.outside().join("web.xml");
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

#[test]
fn rates_of_a_disk_hold_live_and_are_kept_and_another_daemon_has_them() -> Result<()> {
    let mut host = Libvirt::start()?;
    let file = document(&host, "")?;
    host.virsh(&format!("define {file}"))?;
    host.virsh("start web")?;
    host.virsh("blkdeviotune web vda --total-bytes-sec 1048576 --total-bytes-sec-max 2097152 --total-bytes-sec-max-length 3 --live")?;
    host.virsh("blkdeviotune web vda --read-iops-sec 100 --write-iops-sec 50 --config")?;
    let live = "total_bytes_sec: 1048576 read_bytes_sec : 0";
    shows(&host, "blkdeviotune web vda --live", live)?;
    shows(
        &host,
        "blkdeviotune web vda --live",
        "total_bytes_sec_max_length: 3",
    )?;
    let kept = "total_iops_sec : 0 read_iops_sec : 100 write_iops_sec : 50";
    shows(&host, "blkdeviotune web vda --config", kept)?;
    shows(&host, "dumpxml web", "<total_bytes_sec_max_length>3<")?;
    shows(&host, "dumpxml web --inactive", "<write_iops_sec>50<")?;
    // It is of the machine, and not of the one who watches it.
    host.daemon.terminate()?;
    host.daemon.spawn()?;
    shows(&host, "blkdeviotune web vda --live", live)?;
    host.virsh("blkdeviotune web vda --total-bytes-sec 0 --total-bytes-sec-max 0 --live")?;
    ensure!(!host.virsh("dumpxml web")?.contains("iotune"));
    complains(&host, "blkdeviotune web vdz", "disk 'vdz' was not found")?;
    let both = "blkdeviotune web vda --total-iops-sec 1 --read-iops-sec 1";
    complains(&host, both, "of iops_sec cannot be set at the same time")?;
    let grouped = "blkdeviotune web vda --total-iops-sec 1 --group-name g";
    complains(&host, grouped, "'group_name' not supported")?;
    host.virsh("destroy web")?;
    Ok(())
}

#[test]
fn memory_is_on_the_nodes_that_are_said_from_the_first_page_on() -> Result<()> {
    let host = Libvirt::start()?;
    let nodes = "<numatune><memory mode='interleave' nodeset='0'/></numatune>";
    let file = document(&host, nodes)?;
    host.virsh(&format!("define {file}"))?;
    host.virsh("start web")?;
    shows(
        &host,
        "numatune web",
        "numa_mode : interleave numa_nodeset : 0",
    )?;
    // The kernel's own word for the policy of the worker, of memory that nothing else is said of.
    let workers = host.daemon.workers();
    let worker = workers.first().context("no worker")?;
    let maps = fs::read_to_string(format!("/proc/{worker}/numa_maps"))?;
    ensure!(
        maps.lines().any(|line| line.contains("interleave:0")),
        "{maps}"
    );
    complains(
        &host,
        "numatune web --nodeset 0 --live",
        "requires restrictive",
    )?;
    complains(
        &host,
        "numatune web --mode strict --live",
        "can't change numatune mode",
    )?;
    host.virsh("numatune web --mode strict --nodeset 0 --config")?;
    shows(
        &host,
        "dumpxml web --inactive",
        "<memory mode='strict' nodeset='0'/>",
    )?;
    host.virsh("destroy web")?;
    host.virsh("start web")?;
    let workers = host.daemon.workers();
    let worker = workers.first().context("no worker")?;
    let maps = fs::read_to_string(format!("/proc/{worker}/numa_maps"))?;
    ensure!(maps.lines().any(|line| line.contains("bind:0")), "{maps}");
    host.virsh("destroy web")?;
    host.virsh("numatune web --nodeset 0,1023 --config")?;
    complains(&host, "start web", "NUMA node 1023 is unavailable")?;
    Ok(())
}

#[test]
fn shares_of_block_devices_and_quotas_of_vcpus_are_kept() -> Result<()> {
    let host = Libvirt::start()?;
    let quota = "<cputune><period>70000</period><quota>35001</quota></cputune>";
    let file = document(&host, quota)?;
    host.virsh(&format!("define {file}"))?;
    shows(
        &host,
        "schedinfo web --config",
        "vcpu_period : 70000 vcpu_quota : 35001",
    )?;
    host.virsh("schedinfo web --set vcpu_quota=40000 --config")?;
    shows(&host, "dumpxml web", "<quota>40000</quota>")?;
    host.virsh("schedinfo web --set vcpu_quota=-1 --config")?;
    ensure!(!host.virsh("dumpxml web")?.contains("quota"));
    host.virsh("blkiotune web --weight 500 --device-read-bytes-sec /dev/null,4096 --config")?;
    shows(&host, "blkiotune web", "weight : 500")?;
    shows(
        &host,
        "dumpxml web",
        "<path>/dev/null</path> <read_bytes_sec>4096<",
    )?;
    // Which is no block device.
    complains(
        &host,
        "start web",
        "cannot bound what 'web' uses of /dev/null",
    )?;
    let outside = "blkiotune web --device-weights /etc/passwd,100 --config";
    complains(&host, outside, "beneath /dev")?;
    host.virsh("blkiotune web --device-read-bytes-sec /dev/null,0 --config")?;
    ensure!(!host.virsh("dumpxml web")?.contains("/dev/null"));
    // A client of its own refuses a weight of 0, by which it would be taken back.
    host.virsh("undefine web")?;
    let file = document(&host, "")?;
    host.virsh(&format!("define {file}"))?;
    ensure!(!host.virsh("dumpxml web")?.contains("blkiotune"));
    host.virsh("start web")?;
    // Without limits it has no cgroup here, and gets none while it runs.
    complains(
        &host,
        "blkiotune web --weight 500 --live",
        "cannot limit 'web'",
    )?;
    host.virsh("destroy web")?;
    Ok(())
}

#[test]
fn limits_of_memory_and_of_swap_beside_it_are_kept_and_refused_where_nothing_counts() -> Result<()>
{
    let mut host = Libvirt::start()?;
    let limits = "<memtune><hard_limit unit='MiB'>512</hard_limit>\
        <soft_limit unit='MiB'>256</soft_limit><swap_hard_limit unit='GiB'>1</swap_hard_limit></memtune>";
    let file = document(&host, limits)?;
    host.virsh(&format!("define {file}"))?;
    let told = "hard_limit : 524288 soft_limit : 262144 swap_hard_limit: 1048576";
    shows(&host, "memtune web", told)?;
    shows(&host, "dumpxml web", "<soft_limit unit='KiB'>262144<")?;
    shows(&host, "dumpxml web", "<swap_hard_limit unit='KiB'>1048576<")?;
    let too_little = "memtune web --swap-hard-limit 256M --config";
    complains(&host, too_little, "equal to swap_hard_limit")?;
    complains(
        &host,
        "memtune web --hard-limit -1 --config",
        "equal to swap_hard_limit",
    )?;
    shows(&host, "memtune web", told)?;
    host.virsh("memtune web --hard-limit 2G --swap-hard-limit 3G --soft-limit -1 --config")?;
    let now = "hard_limit : 2097152 soft_limit : unlimited swap_hard_limit: 3145728";
    shows(&host, "memtune web", now)?;
    host.daemon.terminate()?;
    host.daemon.spawn()?;
    shows(&host, "memtune web --config", now)?;
    host.virsh("memtune web --hard-limit -1 --swap-hard-limit -1 --config")?;
    ensure!(!host.virsh("dumpxml web")?.contains("memtune"));
    host.virsh("start web")?;
    // Without limits it has no cgroup here, and gets none while it runs: what is refused is noted nowhere.
    complains(
        &host,
        "memtune web --soft-limit 256M --live",
        "cannot limit 'web'",
    )?;
    shows(&host, "memtune web --live", "soft_limit : unlimited")?;
    host.virsh("destroy web")?;
    Ok(())
}

/// Who waits is whoever asks next; that there is an agent no guest here says.
#[test]
fn how_long_an_agent_is_waited_for_is_kept_with_its_domain_and_outlives_the_daemon() -> Result<()> {
    let mut host = Libvirt::start()?;
    let file = document(&host, "")?;
    host.virsh(&format!("define {file}"))?;
    let said = |host: &Libvirt| -> Result<Option<AgentTimeout>> {
        let domain = named("web");
        Ok(host
            .daemon
            .connect()?
            .call(DomainGet { domain })?
            .agent_timeout)
    };
    ensure!(said(&host)?.is_none());
    host.virsh("guest-agent-timeout web --timeout -2")?;
    ensure!(said(&host)? == Some(AgentTimeout::Block));
    host.virsh("start web")?;
    ensure!(said(&host)? == Some(AgentTimeout::Block));
    host.virsh("guest-agent-timeout web --timeout 7")?;
    host.daemon.terminate()?;
    host.daemon.spawn()?;
    ensure!(said(&host)? == Some(AgentTimeout::Seconds(7)));
    let less = "guest agent timeout '-3' is less than the minimum '-2'";
    complains(&host, "guest-agent-timeout web --timeout -3", less)?;
    complains(
        &host,
        "guest-agent-timeout none --timeout 1",
        "failed to get domain",
    )?;
    ensure!(said(&host)? == Some(AgentTimeout::Seconds(7)));
    host.virsh("destroy web")?;
    Ok(())
}
