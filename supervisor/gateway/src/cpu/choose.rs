//! The model that says a set of features best: as libvirt chooses, so that documents are the same.
//!
//! A processor that is named is that one, and one whose family and model a model has is taken for that. Else the
//! shortest list wins, in which each
//! further feature that the model has and the processor lacks counts more: one is 1, two are 3, three are 6. A guest
//! bears what it did not expect better than the lack of what it did.

use super::features::{Feature, Features};
use super::models::{Chosen, MODELS, Model};
use super::{Vendor, features_of, gone_of};

/// Which model, and what the processor has beyond and lacks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) model: &'static str,
    pub(crate) more: Features,
    pub(crate) less: Features,
}

impl Choice {
    /// Features that are to be said of it, in the order of documents, with whether it has them.
    pub(crate) fn said(&self) -> impl Iterator<Item = (Feature, bool)> {
        let more = self.more.iter().map(|feature| (feature, true));
        more.chain(self.less.iter().map(|feature| (feature, false)))
    }

    /// What its model has.
    pub(crate) fn has(&self) -> Features {
        super::Named::find(self.model)
            .map(super::Named::features)
            .unwrap_or_default()
    }

    fn cost(&self) -> u32 {
        let less = self.less.count();
        let penalty = less.saturating_mul(less.saturating_add(1)) / 2;
        self.more.count().saturating_add(penalty)
    }
}

/// What is taken before the shortest list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First<'a> {
    /// Nothing.
    Nothing,
    /// The model of that name, if it is one that is chosen.
    Named(&'a str),
    /// Models that have this family and model.
    Signed(u32, u32),
}

/// Chooses for a processor of those features. One of a vendor is none of another's models. A `whole` one has all of
/// its model: so a host's own processor is said.
pub(crate) fn choose(
    features: Features,
    vendor: Option<Vendor>,
    first: First<'_>,
    whole: bool,
) -> Option<Choice> {
    let features = features.without(Features::of_the_system());
    let mut best: Option<(bool, Choice)> = None;
    for model in MODELS {
        let foreign = matches!((vendor, model.vendor), (Some(one), Some(other)) if one != other);
        let chosen = match model.chosen {
            Chosen::Always => true,
            Chosen::ForHosts => whole,
            Chosen::Never => false,
        };
        if foreign || !chosen {
            continue;
        }
        let choice = differences(model, features);
        if whole && !choice.less.is_empty() {
            continue;
        }
        let signed = match first {
            First::Nothing => false,
            First::Named(name) => model.name == name,
            First::Signed(family, number) => model.signatures.contains(&(family, number)),
        };
        let better = match &best {
            None => true,
            Some((other, _)) if *other != signed => signed,
            Some((_, other)) => choice.cost() < other.cost(),
        };
        if better {
            best = Some((signed, choice));
        }
    }
    best.map(|(_, choice)| choice)
}

fn differences(model: &'static Model, features: Features) -> Choice {
    let own = features_of(model);
    let gone = gone_of(model).without(features);
    Choice {
        model: model.name,
        more: features.without(own),
        less: own.and(gone).without(features),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Named;
    use super::*;

    fn of(name: &str) -> Features {
        Named::find(name).unwrap().features()
    }

    fn said(choice: &Choice) -> Vec<String> {
        let said = choice.said();
        let said =
            said.map(|(feature, is)| format!("{}{}", if is { "" } else { "-" }, feature.name()));
        std::iter::once(choice.model.to_owned())
            .chain(said)
            .collect()
    }

    /// What libvirtd 9.0 answers to the same.
    #[test]
    fn models_in_common_are_those_libvirt_finds() {
        let common = |one, other| {
            let found = choose(of(one).common(of(other)), None, First::Nothing, false);
            said(&found.unwrap()).join(" ")
        };
        let both = "SandyBridge fma movbe fsgsbase bmi1 avx2 smep bmi2 -x2apic -tsc-deadline";
        assert_eq!(common("EPYC", "Haswell"), both);
        assert_eq!(common("Nehalem", "Haswell"), "Nehalem");
        assert_eq!(common("Opteron_G3", "EPYC"), "Opteron_G3 -monitor");
        assert_eq!(common("EPYC", "EPYC-Rome"), "EPYC -monitor");
        assert_eq!(
            common("Icelake-Server", "Cascadelake-Server"),
            "Cascadelake-Server"
        );
        assert_eq!(common("pentium3", "Skylake-Client"), "pentium3");
    }

    #[test]
    fn a_model_is_chosen_for_what_it_has() {
        for model in MODELS.iter().filter(|model| model.chosen == Chosen::Always) {
            let found = choose(
                features_of(model),
                model.vendor,
                First::Named(model.name),
                false,
            );
            assert_eq!(found.unwrap().model, model.name);
        }
        let without = of("Haswell").without(Features::listed("rtm aes ssse3 sse4.1 sse4.2"));
        let found = choose(without, None, First::Named("Haswell"), false).unwrap();
        assert_eq!(found.model, "Haswell");
        let found = choose(without, None, First::Signed(6, 60), false).unwrap();
        assert!(found.model.starts_with("Haswell"), "{}", found.model);
    }

    #[test]
    fn a_whole_processor_lacks_nothing_of_its_model() {
        let without = of("EPYC").without(Features::listed("svm"));
        let found = choose(without, Some(Vendor::Amd), First::Signed(23, 1), true).unwrap();
        assert!(found.less.is_empty());
        assert_eq!(found.model, "kvm64");
    }
}
