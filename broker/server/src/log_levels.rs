//! Levels of the broker's loggers, which administrators see and change while it runs (KIP-412, resource type BROKER_LOGGER).
//!
//! A logger is a crate, or a module in it (`millstream_server::net`); `root` is for all that have no level of their own. Changes are lost
//! when the broker stops, as in Kafka.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use millstream_core::metadata::{configs::AlterOp, controller::Refusal};
use millstream_protocol::ErrorCode;

/// The logger of all that have no level of their own.
pub const ROOT: &str = "root";
/// Crates that log. The first is the parent of the others.
const LOGGERS: [&str; 5] = [
    "millstream",
    "millstream_host",
    "millstream_log",
    "millstream_server",
    "millstream_tiered",
];
/// Longest name of a logger, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Loggers with levels of their own.
const SET_MAX: usize = 256;

/// How much a logger says; Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing here is fatal and goes on: silence.
    Fatal,
    /// What failed.
    Error,
    /// And what is odd.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}

impl Level {
    const ALL: [Self; 6] = [Self::Fatal, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// Levels by logger; `root` is always there.
pub type Levels = BTreeMap<String, Level>;

type Apply = Box<dyn Fn(&Levels) + Send + Sync>;

/// The levels that are set, and how they come into force.
pub struct LogLevels {
    set: Mutex<Levels>,
    apply: Apply,
}

impl fmt::Debug for LogLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevels").field("set", &self.set).finish_non_exhaustive()
    }
}

/// One change of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LevelChange<'a> {
    pub logger: &'a str,
    pub op: AlterOp,
    pub level: Option<&'a str>,
}

impl LogLevels {
    /// Levels as they are set at start. `apply` is called after each change with all that are set.
    pub fn new(mut set: Levels, apply: impl Fn(&Levels) + Send + Sync + 'static) -> Self {
        set.entry(ROOT.to_owned()).or_insert(Level::Info);
        Self {
            set: Mutex::new(set),
            apply: Box::new(apply),
        }
    }

    /// All loggers with the levels that hold for them.
    pub(crate) fn describe(&self) -> Vec<(String, Level)> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = set.keys().cloned().collect();
        names.extend(
            LOGGERS
                .iter()
                .filter(|name| !set.contains_key(**name))
                .map(|name| (*name).to_owned()),
        );
        names.sort();
        names.into_iter().map(|name| (name.clone(), effective(&set, &name))).collect()
    }

    /// Makes all changes or, if one is refused, none.
    pub(crate) fn alter(&self, changes: &[LevelChange<'_>], validate_only: bool) -> Result<(), Refusal> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let mut after = set.clone();
        for change in changes {
            alter_one(&mut after, change)?;
        }
        if after.len() > SET_MAX {
            return Err(refused(
                ErrorCode::InvalidConfig,
                format!("At most {SET_MAX} loggers can have levels of their own."),
            ));
        }
        if !validate_only {
            (self.apply)(&after);
            *set = after;
        }
        Ok(())
    }
}

fn refused(code: ErrorCode, message: String) -> Refusal {
    Refusal { code, message }
}

fn alter_one(set: &mut Levels, change: &LevelChange<'_>) -> Result<(), Refusal> {
    let name = change.logger;
    match change.op {
        AlterOp::Append | AlterOp::Subtract => {
            let op = if change.op == AlterOp::Append { "APPEND" } else { "SUBTRACT" };
            let message = format!("{op} operation is not allowed for the BROKER_LOGGER resource");
            return Err(refused(ErrorCode::InvalidRequest, message));
        }
        AlterOp::Set | AlterOp::Delete if !exists(name) => {
            return Err(refused(
                ErrorCode::InvalidConfig,
                format!("Logger {} does not exist!", name.escape_debug()),
            ));
        }
        AlterOp::Delete if name == ROOT => {
            let message = "Removing the log level of the root logger is not allowed".to_owned();
            return Err(refused(ErrorCode::InvalidRequest, message));
        }
        AlterOp::Delete => drop(set.remove(name)),
        AlterOp::Set => {
            let wanted = change
                .level
                .ok_or_else(|| refused(ErrorCode::InvalidRequest, format!("Null value not supported for : {name}")))?;
            let level = Level::from_name(wanted).ok_or_else(|| {
                let mut valid = Level::ALL.map(Level::name);
                valid.sort_unstable();
                let valid = valid.join(", ");
                let shown: String = wanted.escape_debug().take(NAME_BYTES_MAX).collect();
                let message = format!(
                    "Cannot set the log level of {name} to {shown} as it is not a supported log level. Valid log levels are {valid}"
                );
                refused(ErrorCode::InvalidConfig, message)
            })?;
            set.insert(name.to_owned(), level);
        }
    }
    Ok(())
}

/// Whether a logger is known: a crate, or a path of modules in one.
fn exists(name: &str) -> bool {
    let mut path = name.split("::");
    let is_crate = path.next().is_some_and(|first| LOGGERS.contains(&first));
    let is_module = |module: &str| !module.is_empty() && module.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name == ROOT || is_crate && name.len() <= NAME_BYTES_MAX && path.all(is_module)
}

/// A logger's own level, or that of the longest name that begins its own.
fn effective(set: &Levels, name: &str) -> Level {
    let parents = set.iter().filter(|(parent, _)| name.starts_with(parent.as_str()));
    let nearest = parents.max_by_key(|(parent, _)| parent.len());
    nearest
        .map(|(_, level)| *level)
        .or_else(|| set.get(ROOT).copied())
        .unwrap_or(Level::Info)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn change<'a>(logger: &'a str, op: AlterOp, level: &'a str) -> LevelChange<'a> {
        LevelChange {
            logger,
            op,
            level: Some(level),
        }
    }

    fn started() -> (LogLevels, Arc<Mutex<Levels>>) {
        let applied = Arc::new(Mutex::new(Levels::new()));
        let sink = Arc::clone(&applied);
        let levels = LogLevels::new(Levels::new(), move |levels| levels.clone_into(&mut sink.lock().unwrap()));
        (levels, applied)
    }

    fn shown(levels: &LogLevels, name: &str) -> Option<&'static str> {
        let all = levels.describe();
        all.iter().find(|(logger, _)| logger == name).map(|(_, level)| level.name())
    }

    #[test]
    fn loggers_have_the_level_of_their_nearest_parent() {
        let (levels, applied) = started();
        assert_eq!(
            (shown(&levels, ROOT), shown(&levels, "millstream_log")),
            (Some("INFO"), Some("INFO"))
        );
        let set = |logger, level| levels.alter(&[change(logger, AlterOp::Set, level)], false);
        set("millstream_log", "DEBUG").unwrap();
        set(ROOT, "WARN").unwrap();
        set("millstream_server::net", "TRACE").unwrap();
        assert_eq!(
            (shown(&levels, "millstream_log"), shown(&levels, "millstream_server")),
            (Some("DEBUG"), Some("WARN"))
        );
        assert_eq!(shown(&levels, "millstream_server::net"), Some("TRACE"));
        assert_eq!(applied.lock().unwrap().len(), 3);
        levels.alter(&[change("millstream_log", AlterOp::Delete, "")], false).unwrap();
        assert_eq!(shown(&levels, "millstream_log"), Some("WARN"));
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let (levels, applied) = started();
        let refused = [
            change(ROOT, AlterOp::Set, "LOUD"),
            change(ROOT, AlterOp::Set, "debug"),
            change("no.such.logger", AlterOp::Set, "INFO"),
            change("millstream_log::", AlterOp::Set, "INFO"),
            change("millstream_log::a=b,c", AlterOp::Set, "INFO"),
            change(ROOT, AlterOp::Delete, ""),
            change(ROOT, AlterOp::Append, "INFO"),
        ];
        for bad in refused {
            let changes = [change("millstream_log", AlterOp::Set, "TRACE"), bad];
            levels.alter(&changes, false).unwrap_err();
        }
        levels.alter(&[change("millstream_log", AlterOp::Set, "TRACE")], true).unwrap();
        assert_eq!(shown(&levels, "millstream_log"), Some("INFO"));
        assert!(applied.lock().unwrap().is_empty());
    }
}
