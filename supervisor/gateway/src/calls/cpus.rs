//! Models of processors, and how one compares: with the host's own, and with what a guest finds here.

use std::sync::Arc;

use reeve_ipc::api::call::HostCpuidGet;
use reeve_ipc::api::host::HostInfo;
use reeve_ipc::spec::CpuidEntry;

use super::failure::{Code, Failure, Origin, check_flags, invalid_argument};
use super::{Context, connect, host};
use crate::cpu::{Feature, Features, First, Named, Vendor, choose, model_names};
use crate::wire::types::connect as wire;
use crate::xml::capabilities::Processor;
use crate::xml::cpu::{self as document, ARCHITECTURES, As, Cpu, Match, Policy};
use crate::xml::domain_capabilities::Query;

/// Flags of a comparison: that a processor which does not fit is an error, and that documents are held against the
/// schema.
const FAIL: u32 = 1;
const VALIDATE: u32 = 2;
/// Flags of a common processor: that what its model has is said too, and that what cannot migrate is left out.
const EXPAND: u32 = 1;
const MIGRATABLE: u32 = 2;

/// Answers of a comparison.
const INCOMPATIBLE: i32 = 0;
const IDENTICAL: i32 = 1;
const SUPERSET: i32 = 2;

/// A processor that others are held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) vendor: Option<Vendor>,
    pub(super) signature: (u32, u32),
    pub(super) features: Features,
}

impl Known {
    fn of(info: &HostInfo, leaves: &[CpuidEntry]) -> Self {
        Self {
            vendor: Vendor::signed(&info.cpu.vendor),
            signature: (info.cpu.family, info.cpu.model),
            features: Features::of(leaves),
        }
    }

    /// As documents tell of it; a `whole` one has all of its model, and is told of with what the running system has
    /// switched on.
    pub(super) fn described(&self, whole: bool) -> Option<Processor> {
        let (family, model) = self.signature;
        let choice = choose(
            self.features,
            self.vendor,
            First::Signed(family, model),
            whole,
        )?;
        let said = match whole {
            true => self
                .features
                .without(choice.has())
                .iter()
                .map(|feature| (feature, true))
                .collect(),
            false => choice.said().collect::<Vec<_>>(),
        };
        Some(Processor {
            model: choice.model.to_owned(),
            vendor: self.vendor.map(|vendor| vendor.name().to_owned()),
            features: said
                .into_iter()
                .map(|(feature, is)| (feature.name().to_owned(), is))
                .collect(),
        })
    }
}

/// The host's own processor, and that of a guest.
pub(super) async fn known(context: &Context) -> Result<(Known, Known), Failure> {
    let (info, leaves) = tokio::join!(connect::host(context), context.call(HostCpuidGet {}));
    let (info, leaves) = (info?, leaves?);
    Ok((
        Known::of(&info, &leaves.host),
        Known::of(&info, &leaves.guest),
    ))
}

fn error(code: Code, why: impl Into<String>) -> Failure {
    Failure::of(Origin::Cpu, code, why)
}

pub(super) async fn models(
    _: Arc<Context>,
    call: wire::ConnectGetCpuModelNames,
) -> Result<wire::CpuModelNames, Failure> {
    check_flags(call.flags, 0, "virConnectGetCPUModelNames")?;
    if !ARCHITECTURES.contains(&call.arch.as_str()) {
        let arch: String = call.arch.chars().take(64).collect();
        return Err(invalid_argument(format!("cannot find architecture {arch}")));
    }
    // Of others none is known.
    let is_x86 = matches!(call.arch.as_str(), "x86_64" | "i686");
    let names = || model_names().filter(|_| is_x86).map(str::to_owned);
    let ret = i32::try_from(names().count()).unwrap_or(i32::MAX);
    let models: Vec<String> = names().filter(|_| call.need_results).collect();
    Ok(wire::CpuModelNames {
        models: models.into(),
        ret,
    })
}

pub(super) async fn compare(
    context: Arc<Context>,
    call: wire::ConnectCompareCpu,
) -> Result<i32, Failure> {
    check_flags(call.flags, FAIL | VALIDATE, "virConnectCompareCPU")?;
    let cpu = document::parse(&call.xml, As::Either, call.flags & VALIDATE != 0);
    let cpu = cpu.map_err(|error| of_schema(error, call.flags))?;
    let (host, _) = known(&context).await?;
    held_against(&host, &cpu, call.flags & FAIL != 0)
}

pub(super) async fn compare_with_hypervisor(
    context: Arc<Context>,
    call: wire::ConnectCompareHypervisorCpu,
) -> Result<i32, Failure> {
    check_flags(
        call.flags,
        FAIL | VALIDATE,
        "virConnectCompareHypervisorCPU",
    )?;
    let query = Query {
        emulator: call.emulator.as_deref(),
        arch: call.arch.as_deref(),
        machine: call.machine.as_deref(),
        kind: call.virt_type.as_deref(),
    };
    host::capabilities_of(&context, &query).await?;
    let cpu = document::parse(&call.cpu, As::Either, call.flags & VALIDATE != 0);
    let cpu = cpu.map_err(|error| of_schema(error, call.flags))?;
    let (_, guest) = known(&context).await?;
    held_against(&guest, &cpu, call.flags & FAIL != 0)
}

/// What a document that was to be held against the schema is refused with.
fn of_schema(error: crate::xml::XmlError, flags: u32) -> Failure {
    let why = error.message.clone();
    let failure = Failure::from(error);
    match failure.code {
        Code::XmlError if flags & VALIDATE != 0 => Failure::new(Code::XmlInvalidSchema, why),
        _ => failure,
    }
}

/// What a document says that a processor has.
#[derive(Debug, Default)]
struct Wanted {
    required: Features,
    forbidden: Features,
}

fn wanted(cpu: &Cpu, model: Named) -> Result<Wanted, Failure> {
    let mut wanted = Wanted {
        required: model.features(),
        ..Wanted::default()
    };
    for (name, policy) in &cpu.features {
        let unknown = || error(Code::InternalError, format!("Unknown CPU feature {name}"));
        let feature = Feature::named(name).ok_or_else(unknown)?;
        match policy {
            Policy::Require => wanted.required.insert(feature),
            Policy::Force | Policy::Optional | Policy::Disable => wanted.required.remove(feature),
            Policy::Forbid => {
                wanted.required.remove(feature);
                wanted.forbidden.insert(feature);
            }
        }
    }
    Ok(wanted)
}

fn model(name: &str) -> Result<Named, Failure> {
    let unknown = || error(Code::InternalError, format!("Unknown CPU model {name}"));
    Named::find(name).ok_or_else(unknown)
}

fn listed(features: Features) -> String {
    let names: Vec<_> = features.iter().map(Feature::name).collect();
    names.join(", ")
}

fn held_against(known: &Known, cpu: &Cpu, fail: bool) -> Result<i32, Failure> {
    let unfit = |why: String| match fail {
        true => Err(error(Code::CpuIncompatible, why)),
        false => Ok(INCOMPATIBLE),
    };
    if let Some(arch) = cpu
        .arch
        .as_ref()
        .filter(|arch| *arch != "x86_64" && *arch != "i686")
    {
        return unfit(format!("CPU arch {arch} does not match host arch"));
    }
    let Some(name) = &cpu.model else {
        // A mode that takes what the host has.
        return match fail && cpu.guest.is_none() {
            true => Err(invalid_argument("no CPU model specified")),
            false => Ok(SUPERSET),
        };
    };
    let own = known.vendor.map_or("", Vendor::name);
    if let Some(vendor) = cpu.vendor.as_ref().filter(|vendor| *vendor != own) {
        let why = format!("host CPU vendor does not match required CPU vendor {vendor}");
        return unfit(why);
    }
    let wanted = wanted(cpu, model(name)?)?;
    let features = known.features.without(Features::of_the_system());
    let forbidden = wanted.forbidden.common(features);
    if !forbidden.is_empty() {
        let why = format!(
            "Host CPU provides forbidden features: {}",
            listed(forbidden)
        );
        return unfit(why);
    }
    let required = wanted.required.without(Features::of_the_system());
    let lacking = required.without(features);
    if !lacking.is_empty() {
        let why = format!(
            "Host CPU does not provide required features: {}",
            listed(lacking)
        );
        return unfit(why);
    }
    let more = features.without(required);
    if more.is_empty() {
        return Ok(IDENTICAL);
    }
    match cpu.guest {
        Some(Match::Strict) => unfit(format!(
            "Host CPU does not strictly match guest CPU: Extra features: {}",
            listed(more)
        )),
        _ => Ok(SUPERSET),
    }
}

pub(super) async fn baseline(
    _: Arc<Context>,
    call: wire::ConnectBaselineCpu,
) -> Result<String, Failure> {
    check_flags(call.flags, EXPAND | MIGRATABLE, "virConnectBaselineCPU")?;
    in_common(&call.cpus.0, As::Host, None, call.flags)
}

pub(super) async fn baseline_of_hypervisor(
    context: Arc<Context>,
    call: wire::ConnectBaselineHypervisorCpu,
) -> Result<String, Failure> {
    check_flags(
        call.flags,
        EXPAND | MIGRATABLE,
        "virConnectBaselineHypervisorCPU",
    )?;
    let query = Query {
        emulator: call.emulator.as_deref(),
        arch: call.arch.as_deref(),
        machine: call.machine.as_deref(),
        kind: call.virt_type.as_deref(),
    };
    host::capabilities_of(&context, &query).await?;
    let (_, guest) = known(&context).await?;
    in_common(&call.cpus.0, As::Either, Some(guest.features), call.flags)
}

/// What all of the documents can be; `within` what a guest finds, where that is asked for.
fn in_common(
    documents: &[String],
    how: As,
    within: Option<Features>,
    flags: u32,
) -> Result<String, Failure> {
    if documents.is_empty() {
        return Err(invalid_argument("no CPUs given"));
    }
    let mut common: Option<Features> = None;
    let mut vendor = Said::default();
    let mut named: Vec<String> = Vec::new();
    for (index, text) in documents.iter().enumerate() {
        let cpu = document::parse(text, how, false)?;
        let Some(name) = &cpu.model else {
            let why = format!("no CPU model specified at index {index}");
            return Err(invalid_argument(why));
        };
        let model = model(name)?;
        let required = wanted(&cpu, model)?.required;
        vendor.add(&cpu, model, name)?;
        common = Some(common.map_or(required, |common| common.common(required)));
        named.push(name.clone());
    }
    let mut features = common.unwrap_or_default();
    if let Some(within) = within {
        features = features.common(within);
    }
    if flags & MIGRATABLE != 0 {
        features = features.without(Features::unmigratable());
    }
    let none = || error(Code::OperationFailed, "CPUs are incompatible");
    if features.is_empty() {
        return Err(none());
    }
    // Those that are all one model are that.
    let same = named
        .first()
        .filter(|first| named.iter().all(|name| name == *first));
    let first = same.map_or(First::Nothing, |name| First::Named(name));
    let choice = choose(features, vendor.known, first, false).ok_or_else(none)?;
    let has = Named::find(choice.model).map(Named::features);
    let others = has.filter(|_| flags & EXPAND != 0).map(|has| {
        let others = has.without(choice.less);
        others.iter().collect()
    });
    Ok(document::format(
        &choice,
        vendor.of_all(),
        same.is_some_and(|name| name == choice.model) || within.is_some(),
        others,
    ))
}

/// Whose the processors are, as far as documents say.
#[derive(Debug, Default)]
struct Said {
    known: Option<Vendor>,
    unsaid: bool,
}

impl Said {
    fn add(&mut self, cpu: &Cpu, model: Named, name: &str) -> Result<(), Failure> {
        let Some(said) = &cpu.vendor else {
            self.unsaid = true;
            return Ok(());
        };
        let failed = |why: String| error(Code::OperationFailed, why);
        let unknown = || failed(format!("Unknown CPU vendor {said}"));
        let vendor = Vendor::named(said).ok_or_else(unknown)?;
        if let Some(other) = model.vendor().filter(|other| *other != vendor) {
            return Err(failed(format!(
                "CPU vendor {} of model {name} differs from vendor {said}",
                other.name()
            )));
        }
        match self.known {
            Some(known) if known != vendor => Err(failed("CPU vendors do not match".to_owned())),
            _ => {
                self.known = Some(vendor);
                Ok(())
            }
        }
    }

    /// The vendor, where each document says it.
    fn of_all(&self) -> Option<Vendor> {
        self.known.filter(|_| !self.unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Westmere with AVX2.
    fn known() -> Known {
        let mut features = Named::find("Westmere").unwrap().features();
        features.insert(Feature::named("avx2").unwrap());
        Known {
            vendor: Some(Vendor::Intel),
            signature: (6, 44),
            features,
        }
    }

    fn held(text: &str) -> Result<i32, Failure> {
        let cpu = document::parse(text, As::Either, false).unwrap();
        held_against(&known(), &cpu, true)
    }

    #[test]
    fn a_processor_is_held_against_what_is_known() {
        let fits = |text| held(text).unwrap();
        let refused = |text| held(text).unwrap_err().message();
        assert_eq!(
            fits("<cpu match='exact'><model>Nehalem</model></cpu>"),
            SUPERSET
        );
        let same = "<cpu><arch>x86_64</arch><model>Westmere</model><vendor>Intel</vendor>\
            <feature name='avx2'/></cpu>";
        assert_eq!(fits(same), IDENTICAL);
        assert_eq!(fits("<cpu mode='host-passthrough'/>"), SUPERSET);
        assert_eq!(
            refused("<cpu match='exact'><model>SandyBridge</model></cpu>"),
            "the CPU is incompatible with host CPU: Host CPU does not provide required features: \
             pclmuldq, x2apic, tsc-deadline, xsave, avx, rdtscp"
        );
        assert_eq!(
            refused("<cpu match='strict'><model>Westmere</model></cpu>"),
            "the CPU is incompatible with host CPU: Host CPU does not strictly match guest CPU: \
             Extra features: avx2"
        );
        let forbids =
            "<cpu match='exact'><model>486</model><feature name='aes' policy='forbid'/></cpu>";
        assert!(refused(forbids).ends_with("forbidden features: aes"));
        let other = "<cpu match='exact'><model>486</model><vendor>AMD</vendor></cpu>";
        assert!(refused(other).ends_with("does not match required CPU vendor AMD"));
        let unknown = "<cpu match='exact'><model>Nothing</model></cpu>";
        assert_eq!(
            refused(unknown),
            "internal error: Unknown CPU model Nothing"
        );
    }

    fn host(model: &str, more: &str) -> String {
        format!("<cpu><arch>x86_64</arch><model>{model}</model>{more}</cpu>")
    }

    /// As libvirtd 9.0 answers.
    #[test]
    fn processors_in_common_are_printed_as_libvirt_does() {
        let common = |cpus: &[String], flags| in_common(cpus, As::Host, None, flags);
        let one = common(&[host("Haswell", "<feature name='invtsc'/>")], 0).unwrap();
        assert_eq!(
            one,
            "<cpu mode='custom' match='exact'>\n  <model fallback='forbid'>Haswell</model>\n  \
             <feature policy='require' name='invtsc'/>\n</cpu>\n"
        );
        let migratable = common(&[host("Haswell", "<feature name='invtsc'/>")], MIGRATABLE);
        assert!(!migratable.unwrap().contains("invtsc"));
        let vendor = "<vendor>Intel</vendor>";
        let two = common(&[host("Nehalem", vendor), host("Haswell", vendor)], 0).unwrap();
        assert!(two.contains("<model fallback='allow'>Nehalem</model>\n  <vendor>Intel</vendor>"));
        let half = common(&[host("Nehalem", vendor), host("Haswell", "")], 0).unwrap();
        assert!(!half.contains("vendor"));
        let all = common(&[host("kvm64", "")], EXPAND).unwrap();
        assert_eq!(all.lines().count(), 3 + 26);
        let amd = "<vendor>AMD</vendor>";
        let unlike = common(&[host("Nehalem", vendor), host("Opteron_G3", amd)], 0);
        assert_eq!(
            unlike.unwrap_err().message(),
            "operation failed: CPU vendors do not match"
        );
    }

    #[test]
    fn a_guest_is_given_no_more_than_there_is() {
        let found = in_common(
            &[host("SandyBridge", "")],
            As::Either,
            Some(known().features),
            0,
        );
        let found = found.unwrap();
        assert!(
            found.contains("<model fallback='forbid'>SandyBridge</model>"),
            "{found}"
        );
        assert!(found.contains("<feature policy='disable' name='xsave'/>"));
        assert!(!found.contains("policy='disable' name='aes'"));
    }
}
