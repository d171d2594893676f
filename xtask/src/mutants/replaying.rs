//! The mutants of replay: decisions made again. Written like those of the table beside it.

use super::table::Mutant;

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a decision whose inputs are gone is an agreement",
        file: "crates/replay/src/whatif.rs",
        before: "(None, Some(VaultError::ErasedSubject { .. })) => self.undecidable(|all| &mut all.undecidable.erased),",
        after: "(None, Some(VaultError::ErasedSubject { .. })) => { self.counts.agree += 1; None }",
        test: "-p cairn --test commands whatif",
    },
    Mutant {
        name: "what hangs on what nobody saw is decided again",
        file: "crates/policy/src/trial.rs",
        before: "if self.0.decide(&asked).permit != said.permit {",
        after: "if self.0.decide(&asked).permit != said.permit && asked.inputs.len() > 0 {",
        test: "-p cairn-policy --lib trial",
    },
    Mutant {
        name: "other demands are no flip",
        file: "crates/replay/src/judge.rs",
        before: "if demands == would.obligations {",
        after: "if demands.len() <= would.obligations.len() {",
        test: "-p cairn --test commands whatif",
    },
    Mutant {
        name: "whoever changes policies learns what is in payloads",
        file: "crates/operators/src/api.rs",
        before: "Some(\"whatif\") => Role::Payloads,",
        after: "Some(\"whatif\") => Role::Policy,",
        test: "-p cairn --test commands whatif",
    },
    Mutant {
        name: "many payloads are read from the pack that is named alone",
        file: "crates/vault/src/vault.rs",
        before: "for path in [pack, pack.saturating_add(1)].map(",
        after: "for path in [pack, pack].map(",
        test: "-p cairn-vault --lib many",
    },
];
