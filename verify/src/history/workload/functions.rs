//! The functions that run plans: sessions, and two kinds of lists.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use tandem::prelude::*;
use tokio::sync::watch;

use super::{Action, Step, Work};
use crate::history::Element;

/// What rejections of plans are called.
const AS_TOLD: &str = "as-told";
/// Lists whose names begin so are maps.
const LOG: &str = "log";
const LIST: &str = "list";

/// All functions of this workload, for `Server::new`.
pub type All = (Session, List, Log);

/// All functions of this workload.
pub fn all() -> All {
    (Session, List, Log)
}

/// The function of a list.
pub fn function_of(key: &str) -> &'static str {
    if key.starts_with(LOG) { LOG } else { LIST }
}

/// The name of a list, which says what kind it is.
pub fn name_of(number: usize) -> String {
    format!("{}-{number}", if number.is_multiple_of(2) { LIST } else { LOG })
}

/// A list as one value.
#[derive(State)]
pub struct Elements {
    elements: Value<Vec<Element>>,
}

/// Lists that are one value.
#[function(name = "list")]
impl List {
    /// A plan that enters here: what is in the list, its own append, and what else there is to do.
    async fn run(ctx: &Ctx<Elements>, work: Work) -> Result<Vec<Vec<Element>>> {
        enter_list(ctx, work).await
    }

    /// The same with snapshot isolation.
    #[handler(snapshot)]
    async fn snapshot(ctx: &Ctx<Elements>, work: Work) -> Result<Vec<Vec<Element>>> {
        enter_list(ctx, work).await
    }

    /// The same in a flow that only reads.
    #[handler(read_only)]
    async fn look(ctx: &Ctx<Elements>, work: Work) -> Result<Vec<Vec<Element>>> {
        enter_list(ctx, work).await
    }

    /// Puts an element at the end.
    async fn append(ctx: &Ctx<Elements>, element: Element) -> Result<()> {
        ctx.state.elements.update(|elements| elements.push(element)).await
    }

    /// The same, and then says no.
    async fn undo(ctx: &Ctx<Elements>, element: Element) -> Result<()> {
        ctx.state.elements.update(|elements| elements.push(element)).await?;
        reject(AS_TOLD, "an append to undo")
    }

    /// All elements, in order.
    #[handler(read_only)]
    async fn read(ctx: &Ctx<Elements>) -> Result<Vec<Element>> {
        ctx.state.elements.get_or_default().await
    }
}

async fn enter_list(ctx: &Ctx<Elements>, work: Work) -> Result<Vec<Vec<Element>>> {
    let seen = ctx.state.elements.get_or_default().await?;
    if let Some(element) = work.own {
        let mut elements = seen.clone();
        elements.push(element);
        ctx.state.elements.set(elements);
    }
    do_all(ctx, work, vec![seen]).await
}

/// A list as a map, by place.
#[derive(State)]
pub struct Places {
    places: Map<u64, Element>,
}

/// Lists that are a map: appending looks for the last entry, reading scans them all.
#[function(name = "log")]
impl Log {
    /// A plan that enters here: what is in the list, its own append, and what else there is to do.
    async fn run(ctx: &Ctx<Places>, work: Work) -> Result<Vec<Vec<Element>>> {
        enter_log(ctx, work).await
    }

    /// The same with snapshot isolation.
    #[handler(snapshot)]
    async fn snapshot(ctx: &Ctx<Places>, work: Work) -> Result<Vec<Vec<Element>>> {
        enter_log(ctx, work).await
    }

    /// The same in a flow that only reads.
    #[handler(read_only)]
    async fn look(ctx: &Ctx<Places>, work: Work) -> Result<Vec<Vec<Element>>> {
        enter_log(ctx, work).await
    }

    /// Puts an element at the end.
    async fn append(ctx: &Ctx<Places>, element: Element) -> Result<()> {
        put_last(ctx, element).await
    }

    /// The same, and then says no.
    async fn undo(ctx: &Ctx<Places>, element: Element) -> Result<()> {
        put_last(ctx, element).await?;
        reject(AS_TOLD, "an append to undo")
    }

    /// All elements, in order.
    #[handler(read_only)]
    async fn read(ctx: &Ctx<Places>) -> Result<Vec<Element>> {
        all_places(ctx).await
    }
}

async fn all_places(ctx: &Ctx<Places>) -> Result<Vec<Element>> {
    Ok(ctx.state.places.scan(..).await?.into_iter().map(|(_, element)| element).collect())
}

async fn enter_log(ctx: &Ctx<Places>, work: Work) -> Result<Vec<Vec<Element>>> {
    let seen = all_places(ctx).await?;
    if let Some(element) = work.own {
        put_last(ctx, element).await?;
    }
    do_all(ctx, work, vec![seen]).await
}

async fn put_last(ctx: &Ctx<Places>, element: Element) -> Result<()> {
    let last = ctx.state.places.last(.., 1).await?;
    let place = last.first().map_or(0, |(place, _)| place + 1);
    ctx.state.places.insert(place, element);
    Ok(())
}

/// Runs plans.
#[function(name = "session")]
impl Session {
    /// In a flow that is serializable. Returns the lists that were read.
    async fn run(ctx: &Ctx<()>, work: Work) -> Result<Vec<Vec<Element>>> {
        do_all(ctx, work, Vec::new()).await
    }

    /// In a flow of snapshot isolation.
    #[handler(snapshot)]
    async fn snapshot(ctx: &Ctx<()>, work: Work) -> Result<Vec<Vec<Element>>> {
        do_all(ctx, work, Vec::new()).await
    }

    /// In a flow that only reads.
    #[handler(read_only)]
    async fn look(ctx: &Ctx<()>, work: Work) -> Result<Vec<Vec<Element>>> {
        do_all(ctx, work, Vec::new()).await
    }
}

/// Does the work, and gives all lists that were read.
async fn do_all<S: State>(ctx: &Ctx<S>, work: Work, mut lists: Vec<Vec<Element>>) -> Result<Vec<Vec<Element>>> {
    for group in &work.groups {
        let seen = try_join_all(group.iter().map(|step| do_one(ctx, step))).await?;
        lists.extend(seen.into_iter().flatten());
    }
    if work.reject {
        return reject(AS_TOLD, "a plan that says no");
    }
    Ok(lists)
}

/// Does one step; a read gives its list.
async fn do_one<S: State>(ctx: &Ctx<S>, step: &Step) -> Result<Option<Vec<Element>>> {
    let key = step.key.as_str();
    let function = function_of(key);
    match &step.action {
        Action::Append(element) => ctx.call::<()>(function, key, "append", element).await?,
        Action::Spawn(element) => ctx.call::<()>(function, key, "append", element).spawn(),
        Action::Undo(element) => match ctx.call::<()>(function, key, "undo", element).await {
            Err(error) if error.rejection().is_some() => {}
            Err(error) => return Err(error),
            Ok(()) => return Err(tandem::Error::fatal("a rejection did not come")),
        },
        Action::Read => return ctx.call(function, key, "read", &()).await.map(Some),
        Action::Meet(parties) if ctx.attempt() == 1 => meet(key, *parties).await,
        Action::Meet(_) => {}
    }
    Ok(None)
}

/// How many have come to each point of this process.
static POINTS: LazyLock<Mutex<HashMap<String, watch::Sender<usize>>>> = LazyLock::new(Mutex::default);

fn point(name: &str) -> watch::Sender<usize> {
    let mut points = POINTS.lock().unwrap_or_else(PoisonError::into_inner);
    points.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(0)).clone()
}

async fn meet(name: &str, parties: usize) {
    let point = point(name);
    point.send_modify(|count| *count += 1);
    // The points are kept for ever, so this ends only with the others, or with the flow.
    let _ = point.subscribe().wait_for(|count| *count >= parties).await;
}

/// How many have come to a point.
pub fn met(name: &str) -> usize {
    *point(name).borrow()
}
