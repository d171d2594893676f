//! Why somebody was not let in, and what they are answered.
//!
//! The words are documented in `docs/identity.md` and stand in events and metrics. None of them repeats anything of a credential.

use crate::who::{Credential, Identity};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $word:literal, $status:literal, $error:expr, $says:literal;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word in events and metrics.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The `error` of the challenge (RFC 6750, section 3.1, and RFC 9449, section 7.1).
            #[must_use]
            pub const fn error(self) -> Option<&'static str> {
                match self { $(Self::$name => $error,)* }
            }

            /// What the client is told.
            #[must_use]
            pub const fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }
        }
    };
}

const REQUEST: Option<&str> = Some("invalid_request");
const TOKEN: Option<&str> = Some("invalid_token");
const PROOF: Option<&str> = Some("invalid_dpop_proof");

reasons! {
    /// Nothing that says who asks.
    NoCredentials, "no_credentials", 401, None, "authorization is required";
    /// More than one `Authorization`, or one that cannot be read.
    RequestMalformed, "request_malformed", 400, REQUEST, "send exactly one Authorization header: a scheme and a token";
    /// A scheme other than `Bearer` and `DPoP`.
    SchemeUnknown, "scheme_unknown", 401, None, "use Authorization: Bearer, or DPoP with a proof";
    /// The token is longer than the bound.
    TokenTooLong, "token_too_long", 401, TOKEN, "the token is too long";
    /// No token of three parts that can be read.
    TokenMalformed, "token_malformed", 401, TOKEN, "the token cannot be read";
    /// An algorithm that is not accepted, or not the key's.
    AlgorithmRefused, "algorithm_refused", 401, TOKEN, "the token's algorithm is not accepted";
    /// A `typ` that is no access token's.
    TypeRefused, "type_refused", 401, TOKEN, "the token's type is not that of an access token";
    /// A `crit` header: something must be understood that is not.
    CriticalHeader, "critical_header", 401, TOKEN, "the token has critical headers that are not understood";
    /// No configured issuer made it.
    IssuerUnknown, "issuer_unknown", 401, TOKEN, "the token's issuer is not accepted here";
    /// The issuer has no such key.
    KeyUnknown, "key_unknown", 401, TOKEN, "the token's key is not one of its issuer's";
    /// The signature is not the issuer's.
    SignatureInvalid, "signature_invalid", 401, TOKEN, "the token's signature is not valid";
    /// Its time is over.
    TokenExpired, "token_expired", 401, TOKEN, "the token has expired";
    /// Its time has not come.
    TokenNotYetValid, "token_not_yet_valid", 401, TOKEN, "the token is not valid yet";
    /// It was made for somebody else.
    AudienceWrong, "audience_wrong", 401, TOKEN, "the token was not issued for this server";
    /// A claim that must be there is not, or cannot be used.
    ClaimUnusable, "claim_unusable", 401, TOKEN, "a claim that is needed is missing or cannot be used";
    /// Only tokens that are bound to a certificate or a key are accepted.
    BindingMissing, "binding_missing", 401, TOKEN, "the token is not bound to a certificate or a key, as is required here";
    /// It is bound to another certificate than the connection's.
    CertificateOther, "certificate_other", 401, TOKEN, "the token is bound to another client certificate";
    /// It is bound to a key, and no proof of that key came.
    ProofMissing, "proof_missing", 401, TOKEN, "the token is bound to a key: send it as DPoP with one proof";
    /// The proof does not hold.
    ProofInvalid, "proof_invalid", 401, PROOF, "the DPoP proof is not valid for this request and token";
    /// The proof was used before.
    ProofReplayed, "proof_replayed", 401, PROOF, "the DPoP proof was used before";
    /// No such API key.
    ApiKeyUnknown, "api_key_unknown", 401, TOKEN, "the API key is not valid";
    /// The API key was revoked.
    ApiKeyRevoked, "api_key_revoked", 401, TOKEN, "the API key is not valid";
    /// The API key's time is over.
    ApiKeyExpired, "api_key_expired", 401, TOKEN, "the API key is not valid";
    /// The client certificate does not name a principal.
    CertificateUnusable, "certificate_unusable", 403, None, "the client certificate does not name exactly one principal";
    /// A message that two readers could read differently.
    MessageAmbiguous, "message_ambiguous", 400, None, "the message can be read in two ways";
    /// A message that nests deeper than the bound.
    MessageTooDeep, "message_too_deep", 200, None, "the message nests too deeply";
    /// Headers that say something else than the message.
    HeadersDisagree, "headers_disagree", 400, None, "the headers do not say what the message says";
    /// Request state that was given to somebody else.
    StateOther, "request_state_other", 200, None, "this requestState was not given for this request";
    /// A session of somebody else.
    SessionOther, "session_other", 404, None, "no such session: it ended or never was; send initialize again";
    /// Scopes are missing.
    ScopeInsufficient, "insufficient_scope", 403, Some("insufficient_scope"), "the token lacks a scope that is needed";
    /// The issuer cannot be asked for its keys.
    IssuerUnavailable, "issuer_unavailable", 503, None, "the token's issuer cannot be asked for its keys at the moment; retry later";
    /// Too much at once.
    Busy, "identity_busy", 503, None, "too many requests wait to be verified; retry later";
    /// The store of API keys cannot be read.
    StoreUnreadable, "store_unreadable", 503, None, "API keys cannot be checked at the moment";
    /// An approval of one's own call.
    OwnApproval, "own_approval", 403, None, "nobody approves their own call";
    /// An approval that the policy wants of others.
    NotApprover, "not_approver", 403, None, "the policy names other approvers";
    /// A token that is no operator's.
    OperatorUnknown, "operator_unknown", 401, None, "this is no operator's token";
    /// An operator who may do other things than this.
    RoleMissing, "role_missing", 403, None, "this operator has not the role for that";
}

/// A refusal, with what may be recorded of it.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// What kind of credential came.
    pub credential: Credential,
    /// The configured issuer that the token names, by its name in the configuration. It may not have made the token.
    pub issuer: Option<String>,
    /// Whether the client used, or must use, the scheme `DPoP`.
    pub dpop: bool,
    /// Scopes that were needed and missing.
    pub scopes_missing: Vec<String>,
    /// Who it was, where that was verified.
    pub who: Option<Box<Identity>>,
}

impl Rejection {
    /// A refusal for that reason.
    #[must_use]
    pub fn new(reason: Reason, credential: Credential) -> Self {
        Self { reason, credential, issuer: None, dpop: false, scopes_missing: Vec::new(), who: None }
    }

    /// A refusal of somebody who is known.
    #[must_use]
    pub fn of(reason: Reason, who: &Identity) -> Self {
        Self { who: Some(Box::new(who.clone())), ..Self::new(reason, who.credential) }
    }

    /// A refusal of somebody who lacks scopes.
    #[must_use]
    pub fn lacking(scopes_missing: Vec<String>, who: &Identity) -> Self {
        Self { scopes_missing, ..Self::of(Reason::ScopeInsufficient, who) }
    }
}
