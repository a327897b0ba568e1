//! Why a source was not read, and what its user is to do about it.

use std::sync::Arc;

use super::{Missing, Obstacle, Readability, Source};
use crate::fleet::{ObjectName, services::picker_service};

/// Why a source was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is known of the Service yet.
    NotLookedUp,
    Missing(Missing),
    /// It wants a token (it answered with `status`, 401 or 403) and gets none.
    Withheld {
        status: u16,
        why: Withheld,
    },
    /// It was shown a token and answered 401.
    TokenRefused,
    /// It was shown a token and answered 403: the token's account lacks a right.
    Forbidden,
    /// It was shown a token and failed with 500, while it answers 401 without: so does a picker
    /// that may not review tokens, or not ask whether an account may read its metrics.
    CannotReview,
    /// Another status that says that no page is there.
    Status(u16),
    /// The page shows neither a queue nor anything else of a picker.
    NoSignals,
    /// Its certificate is not to be believed, in words.
    Certificate(Arc<str>),
    /// In words: what a restart, a slow answer or a lost packet looks like.
    Passing(Arc<str>),
}

/// Why a source is shown no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// A tenant has named it.
    Tenant,
    /// It carries the name that KAITO gives to the picker of `pool`, but there is no such
    /// InferencePool.
    NoPool { pool: Arc<str> },
    /// The InferencePool names another picker.
    OtherPicker { pool: Arc<str>, picker: Arc<str> },
    /// The pool can't be read, or no token is given out, in words.
    NoAnswer(Arc<str>),
    /// There is no account whose token could be shown.
    NoAccount,
}

/// What a fault says of the readings to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// It passes by itself.
    Passes,
    /// It lasts, unless the source was read before: then it restarts.
    MayPass,
    /// It lasts until somebody acts.
    Lasts,
}

impl Fault {
    fn outlook(&self) -> Outlook {
        match self {
            Self::NotLookedUp | Self::Passing(_) => Outlook::Passes,
            Self::Missing(Missing::Endpoint)
            | Self::Withheld { why: Withheld::NoAnswer(_), .. }
            | Self::CannotReview => Outlook::MayPass,
            Self::Missing(Missing::Service | Missing::Port)
            | Self::Withheld { .. }
            | Self::TokenRefused
            | Self::Forbidden
            | Self::Status(_)
            | Self::NoSignals
            | Self::Certificate(_) => Outlook::Lasts,
        }
    }

    /// Says what is missing and who can add it. `account` is the ServiceAccount whose token is
    /// shown to pickers.
    #[must_use]
    pub fn explain(&self, source: &Source, account: Option<&ObjectName>) -> String {
        let account = account.map_or_else(|| "of the scaler's tokens".to_owned(), ToString::to_string);
        let service =
            source.service().map_or_else(|| source.to_string(), |service| service.service.to_string());
        match self {
            Self::NotLookedUp => format!("{source} has not been looked up yet"),
            Self::Missing(Missing::Service) => format!("there is no Service {service}"),
            Self::Missing(Missing::Port) => {
                let port = source.service().map_or(0, |service| service.port);
                format!("Service {service} has no port {port}")
            }
            Self::Missing(Missing::Endpoint) => format!("no pod of Service {service} is ready"),
            Self::Withheld { status, why } => {
                format!(
                    "{source} wants a token (status {status}) and is shown none: {}",
                    why.explain(&service)
                )
            }
            Self::TokenRefused => format!("{source} refuses the scaler's token (status 401)"),
            Self::Forbidden => format!(
                "{source} does not let the ServiceAccount {account} read /metrics (status 403): grant it `get` on \
                 the non-resource URL /metrics, which the scaler's chart does with wakeSource.rbac.create=true"
            ),
            Self::CannotReview => format!(
                "{source} can't check tokens (status 500 to a token, 401 without one): bind its ServiceAccount to \
                 the ClusterRole system:auth-delegator (tokenreviews and subjectaccessreviews), which the scaler's \
                 chart does with wakeSource.rbac.create=true and the account in wakeSource.rbac.endpointPickers"
            ),
            Self::Status(status) => format!("{source} answers /metrics with status {status}"),
            Self::NoSignals => format!(
                "the page of {source} has no family that starts with llm_d_epp_ or inference_extension_: it is not \
                 the metrics page of an endpoint picker"
            ),
            Self::Certificate(problem) => format!(
                "the certificate of {source} is not to be believed: {problem}; it has to be valid for {} and signed \
                 by an authority of --wake-source-ca or of the system",
                source.server_name().unwrap_or_default()
            ),
            Self::Passing(problem) => format!("{source} was not read: {problem}"),
        }
    }
}

impl Withheld {
    fn explain(&self, service: &str) -> String {
        match self {
            Self::Tenant => format!(
                "what an annotation or a trigger names gets none unless the operator lists it; add {service} to \
                 wakeSource.allowedServices of the scaler's chart, or serve it without authentication"
            ),
            Self::NoPool { pool } => format!(
                "there is no InferencePool {pool} that names Service {service} as its endpoint picker"
            ),
            Self::OtherPicker { pool, picker } => {
                format!(
                    "the InferencePool {pool} names {picker:?} as its endpoint picker, not Service {service}"
                )
            }
            Self::NoAnswer(problem) => problem.to_string(),
            Self::NoAccount => "the scaler was started without --wake-source-service-account".to_owned(),
        }
    }
}

impl Source {
    /// The name that its certificate has to be valid for; `None` where it is no Service.
    #[must_use]
    pub fn server_name(&self) -> Option<String> {
        let service = &self.service()?.service;
        Some(format!("{}.{}.svc", service.name, service.namespace))
    }
}

/// What is known of a source after another try: `None` where nothing is known still.
#[must_use]
pub fn judge(
    before: Option<&Readability>,
    read: Result<(), &Fault>,
    explain: impl FnOnce(&Fault) -> String,
) -> Option<Readability> {
    let Err(fault) = read else { return Some(Readability::Readable) };
    let stays = match (fault.outlook(), before) {
        (Outlook::Passes, _) | (Outlook::MayPass, Some(Readability::Readable)) => true,
        (Outlook::MayPass | Outlook::Lasts, _) => false,
    };
    if stays { before.cloned() } else { Some(Readability::Unreadable(Obstacle(explain(fault).into()))) }
}

/// Whether `picker` is what an InferencePool names.
///
/// # Errors
/// Why the pool is not the Service's.
pub fn owned_by(pool: &Arc<str>, named: Option<&str>, service: &str) -> Result<(), Withheld> {
    match named {
        Some(named) if named == service && service == picker_service(pool) => Ok(()),
        Some(named) => Err(Withheld::OtherPicker { pool: pool.clone(), picker: named.into() }),
        None => Err(Withheld::NoPool { pool: pool.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::trigger::WakeSource;

    fn all() -> Vec<Fault> {
        let withheld = |status, why| Fault::Withheld { status, why };
        let pool: Arc<str> = "demo-inferencepool".into();
        vec![
            Fault::NotLookedUp,
            Fault::Passing("no complete answer within 1s".into()),
            Fault::Missing(Missing::Endpoint),
            Fault::CannotReview,
            withheld(401, Withheld::NoAnswer("the account is gone".into())),
            Fault::Missing(Missing::Service),
            Fault::Missing(Missing::Port),
            withheld(401, Withheld::Tenant),
            withheld(403, Withheld::NoPool { pool: pool.clone() }),
            withheld(401, Withheld::OtherPicker { pool, picker: "other-epp".into() }),
            withheld(401, Withheld::NoAccount),
            Fault::TokenRefused,
            Fault::Forbidden,
            Fault::Status(404),
            Fault::NoSignals,
            Fault::Certificate("it has expired".into()),
        ]
    }

    #[test]
    fn each_fault_says_what_is_missing() {
        let source = Source::named(&"team-a".into(), &WakeSource::parse("https://epp:8443").unwrap());
        let account = ObjectName::new("keda", "reader");
        let said: Vec<_> = all().iter().map(|fault| fault.explain(&source, Some(&account))).collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn only_what_lasts_takes_a_readable_source_away() {
        let readable = Some(Readability::Readable);
        let unreadable = |text: &str| Some(Readability::Unreadable(Obstacle(text.into())));
        let explain = |_: &Fault| "new".to_owned();
        for (index, fault) in all().iter().enumerate() {
            // In the order above: two pass by themselves, three look like a restart.
            let (after_nothing, after_readable, after_unreadable) = match index {
                0..2 => (None, readable.clone(), unreadable("old")),
                2..5 => (unreadable("new"), readable.clone(), unreadable("new")),
                _ => (unreadable("new"), unreadable("new"), unreadable("new")),
            };
            let judged = |before: Option<Readability>| judge(before.as_ref(), Err(fault), explain);
            assert_eq!(judged(None), after_nothing, "{fault:?}");
            assert_eq!(judged(readable.clone()), after_readable, "{fault:?}");
            assert_eq!(judged(unreadable("old")), after_unreadable, "{fault:?}");
        }
        assert_eq!(judge(unreadable("old").as_ref(), Ok(()), explain), readable);
    }

    #[test]
    fn a_pool_owns_the_service_that_it_names() {
        let pool: Arc<str> = "demo-inferencepool".into();
        let service = "demo-inferencepool-epp";
        assert_eq!(owned_by(&pool, Some(service), service), Ok(()));
        assert_eq!(owned_by(&pool, None, service), Err(Withheld::NoPool { pool: pool.clone() }));
        let other = Withheld::OtherPicker { pool: pool.clone(), picker: "x".into() };
        assert_eq!(owned_by(&pool, Some("x"), service), Err(other.clone()));
        // Named by the pool, but not as KAITO names it: the operator can list it.
        assert_eq!(owned_by(&pool, Some("x"), "x"), Err(other));
    }
}
