//! Processors as libvirt's documents name them: features, models made of them, and how two compare. Pure: the
//! host's own come as leaves of CPUID, documents as what [`crate::xml::cpu`] reads.
//!
//! | module | holds |
//! |---|---|
//! | `features` | the bits of CPUID by name, and sets of them |
//! | `models` | the models by name |
//! | `choose` | the model that says a set of features best |
//!
//! # Decisions
//!
//! The tables are our own (2026-11-30), not libvirt's files: those have another licence, are XML that a jailed
//! process could not read, and change with libvirt's release. What the tables say is held against libvirtd by the
//! conformance test.

mod choose;
mod features;
mod models;

pub(crate) use self::choose::{Choice, First, choose};
pub(crate) use self::features::{Feature, Features};
use self::models::{MODELS, Model};

/// Who makes processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// Intel.
    Intel,
    /// AMD.
    Amd,
    /// Hygon.
    Hygon,
}

impl Vendor {
    const ALL: [Self; 3] = [Self::Intel, Self::Amd, Self::Hygon];

    /// Its name in documents.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Intel => "Intel",
            Self::Amd => "AMD",
            Self::Hygon => "Hygon",
        }
    }

    /// The vendor of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|vendor| vendor.name() == name)
    }

    /// The vendor whose processors call themselves so (leaf 0).
    pub(crate) fn signed(text: &str) -> Option<Self> {
        match text {
            "GenuineIntel" => Some(Self::Intel),
            "AuthenticAMD" => Some(Self::Amd),
            "HygonGenuine" => Some(Self::Hygon),
            _ => None,
        }
    }
}

/// A model by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named(&'static Model);

impl Named {
    /// The model of that name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        MODELS.iter().find(|model| model.name == name).map(Self)
    }

    /// Its vendor, where it has one.
    pub(crate) const fn vendor(self) -> Option<Vendor> {
        self.0.vendor
    }

    /// What it has.
    pub(crate) fn features(self) -> Features {
        features_of(self.0)
    }
}

/// Names of all models, in libvirt's order.
pub(crate) fn model_names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|model| model.name)
}

fn base(model: &Model) -> Option<&'static Model> {
    let name = model.base?;
    MODELS.iter().find(|model| model.name == name)
}

fn features_of(model: &Model) -> Features {
    let base = base(model).map(features_of).unwrap_or_default();
    let own = base.and(Features::listed(model.with));
    own.without(Features::listed(model.without))
}

/// What a document says to be off where it names that model.
fn gone_of(model: &Model) -> Features {
    let base = base(model).map(gone_of).unwrap_or_default();
    let own = base.and(Features::listed(model.gone));
    own.without(features_of(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_what_there_is() {
        for model in MODELS {
            assert_eq!(
                base(model).is_some(),
                model.base.is_some(),
                "{}",
                model.name
            );
            for list in [model.with, model.without, model.gone] {
                for name in list.split_ascii_whitespace() {
                    assert!(Feature::named(name).is_some(), "{}: {name}", model.name);
                }
            }
        }
        let mut names: Vec<_> = model_names().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MODELS.len());
    }

    #[test]
    fn a_model_has_what_its_base_has_but_for_what_it_leaves_out() {
        let of = |name| Named::find(name).unwrap().features();
        let feature = |name| Feature::named(name).unwrap();
        assert!(of("Haswell").has(feature("rtm")));
        assert!(!of("Icelake-Server-noTSX").has(feature("rtm")));
        assert!(of("Icelake-Server-noTSX").has(feature("la57")));
        assert!(of("EPYC").without(of("Opteron_G2")).has(feature("sha-ni")));
        assert!(of("Opteron_G2").without(of("EPYC")).is_empty());
    }
}
