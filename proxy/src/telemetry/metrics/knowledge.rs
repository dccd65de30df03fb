//! Families about what is known of engines' caches: the indexes, the prompts tokenised for them, and the KV events
//! followed. Read from live state when metrics are asked for.
//!
//! Not for what endpoints do or say of their load: those families are in `endpoints`.

use std::fmt::Error;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::ShownPool;
use super::endpoints::labels;
use super::labels::{
    EndpointLabels, EndpointStateLabels, IndexKindLabels, IndexLabels, KindLabels, Name,
    OutcomeLabel,
};
use crate::cache::budget::IndexBudget;
use crate::cache::index::{IndexCounters, IndexStats};
use crate::cache::members::MemberCache;
use crate::cache::subscribe::{SubscriptionCounts, SubscriptionState};
use crate::tokens::TokenPool;

/// Most pools, and most members, shown.
const MAX_ROWS: usize = 4096;

/// What is shown. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct KnowledgeSeries(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    pools: ArcSwap<Vec<ShownPool>>,
    budget: OnceLock<Arc<IndexBudget>>,
    tokens: OnceLock<Arc<TokenPool>>,
}

type IndexCounter = (&'static str, &'static str, fn(&IndexCounters) -> u64);

const INDEX_COUNTERS: [IndexCounter; 9] = [
    (
        "cache_index_evicted_pairs",
        "Pairs given up because the indexes' memory was used up",
        |counters| counters.evicted,
    ),
    (
        "cache_index_outgrown_pairs",
        "Predicted pairs given up because the endpoint's cache holds no more",
        |counters| counters.outgrown,
    ),
    (
        "cache_index_expired_pairs",
        "Predicted pairs given up because the endpoint's events tell",
        |counters| counters.expired,
    ),
    (
        "cache_index_stored_blocks",
        "Blocks stored by KV events",
        |counters| counters.stored,
    ),
    (
        "cache_index_removed_blocks",
        "Blocks removed by KV events",
        |counters| counters.removed,
    ),
    (
        "cache_index_orphaned_runs",
        "Runs of blocks in KV events whose parent is not known",
        |counters| counters.orphaned,
    ),
    (
        "cache_index_malformed_events",
        "KV events whose parts do not fit each other",
        |counters| counters.malformed,
    ),
    (
        "cache_index_partial_runs",
        "Runs passed over because their attention is not full",
        |counters| counters.partial,
    ),
    (
        "cache_index_unknown_blocks",
        "Blocks named by KV events that are not known",
        |counters| counters.unknown,
    ),
];

type EventCounter = (&'static str, &'static str, fn(&SubscriptionCounts) -> u64);

const EVENT_COUNTERS: [EventCounter; 10] = [
    ("kv_event_batches", "Batches applied", |counts| {
        counts.batches
    }),
    ("kv_events", "KV events applied", |counts| counts.events),
    (
        "kv_events_ignored",
        "KV events passed over: unknown types, or contradictions",
        |counts| counts.ignored,
    ),
    (
        "kv_event_gaps",
        "Holes in the numbers of batches",
        |counts| counts.gaps,
    ),
    ("kv_event_replays", "Replays asked for", |counts| {
        counts.replays
    }),
    (
        "kv_event_failed_replays",
        "Replays not answered to the end",
        |counts| counts.failed_replays,
    ),
    (
        "kv_event_clears",
        "Times that all was forgotten: restarts, and holes that stayed",
        |counts| counts.clears,
    ),
    (
        "kv_event_decode_errors",
        "Batches that could not be read",
        |counts| counts.decode_errors,
    ),
    (
        "kv_event_dropped_messages",
        "Messages thrown away unread",
        |counts| counts.dropped,
    ),
    ("kv_event_connections", "Connections made", |counts| {
        counts.connections
    }),
];

impl KnowledgeSeries {
    /// Shows these pools and their members from now on. A pool's name stands there once only.
    pub(super) fn set(&self, pools: Arc<Vec<ShownPool>>) {
        self.0.pools.store(pools);
    }

    /// Shows the memory of all indexes. Only the first counts.
    pub(super) fn set_budget(&self, budget: &Arc<IndexBudget>) {
        self.0.budget.get_or_init(|| Arc::clone(budget));
    }

    /// Shows what this pool tokenises. Only the first counts.
    pub(super) fn set_tokens(&self, tokens: &Arc<TokenPool>) {
        self.0.tokens.get_or_init(|| Arc::clone(tokens));
    }

    fn indexes(&self) -> Vec<(IndexLabels, IndexStats)> {
        let pools = self.0.pools.load();
        let stats = |pool: &ShownPool| {
            let indexes = [
                ("bytes", pool.cache.byte_index().stats()),
                ("tokens", pool.cache.token_index().stats()),
            ];
            let server = Name(Arc::clone(&pool.server));
            indexes.map(|(index, stats)| {
                let server = server.clone();
                (IndexLabels { server, index }, stats)
            })
        };
        pools.iter().take(MAX_ROWS).flat_map(stats).collect()
    }

    /// The indexes by bytes, by ModelServer.
    pub(super) fn byte_indexes(&self) -> Vec<(Name, IndexStats)> {
        let pools = self.0.pools.load();
        let stats = |pool: &ShownPool| {
            let server = Name(Arc::clone(&pool.server));
            (server, pool.cache.byte_index().stats())
        };
        pools.iter().map(stats).collect()
    }

    fn members(&self) -> Vec<(EndpointLabels, Arc<MemberCache>)> {
        let pools = self.0.pools.load();
        let members = pools.iter().flat_map(|pool| {
            let members = pool.members.iter();
            members.map(|member| (labels(&pool.server, member), Arc::clone(&member.cache)))
        });
        let mut members: Vec<_> = members.take(MAX_ROWS).collect();
        // A series may be shown once only.
        members.sort_by(|one, other| one.0.cmp(&other.0));
        members.dedup_by(|one, other| one.0 == other.0);
        members
    }
}

impl Collector for KnowledgeSeries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        encode_indexes(&mut encoder, &self.indexes())?;
        if let Some(budget) = self.0.budget.get() {
            encode_budget(&mut encoder, budget)?;
        }
        if let Some(tokens) = self.0.tokens.get() {
            encode_tokens(&mut encoder, tokens)?;
        }
        encode_events(&mut encoder, &self.members())
    }
}

fn encode_indexes(
    encoder: &mut DescriptorEncoder<'_>,
    indexes: &[(IndexLabels, IndexStats)],
) -> Result<(), Error> {
    let of = |value: fn(&IndexStats) -> usize| {
        let row = move |(labels, stats): &(IndexLabels, IndexStats)| {
            (labels.clone(), value(stats) as f64)
        };
        indexes.iter().map(row)
    };
    let blocks = of(|stats| stats.blocks);
    gauges(
        encoder,
        ("cache_index_blocks", "Different blocks known", None),
        blocks,
    )?;
    let pairs = indexes.iter().flat_map(|(labels, stats)| {
        let kinds = [("predicted", stats.predicted), ("reported", stats.reported)];
        kinds.map(|(kind, count)| {
            let IndexLabels { server, index } = labels.clone();
            let labels = IndexKindLabels {
                server,
                index,
                kind,
            };
            (labels, count as f64)
        })
    });
    gauges(
        encoder,
        (
            "cache_index_pairs",
            "Blocks known, once for each endpoint that holds them",
            None,
        ),
        pairs,
    )?;
    let bytes = of(|stats| stats.bytes);
    gauges(
        encoder,
        ("cache_index", "Memory of the index", Some(&Unit::Bytes)),
        bytes,
    )?;
    for (name, help, value) in INDEX_COUNTERS {
        let rows = indexes.iter();
        let rows = rows.map(|(labels, stats)| (labels.clone(), value(&stats.counters)));
        counters(encoder, (name, help), rows)?;
    }
    Ok(())
}

fn encode_budget(encoder: &mut DescriptorEncoder<'_>, budget: &IndexBudget) -> Result<(), Error> {
    let memory = [("used", budget.used()), ("limit", budget.limit())];
    let rows = memory.map(|(kind, bytes)| (KindLabels { kind }, bytes as f64));
    gauges(
        encoder,
        (
            "cache_memory",
            "Memory of all indexes, and what they may take",
            Some(&Unit::Bytes),
        ),
        rows.into_iter(),
    )
}

fn encode_tokens(encoder: &mut DescriptorEncoder<'_>, tokens: &TokenPool) -> Result<(), Error> {
    let counts = tokens.counters();
    let [told, busy, failed] = counts.by_engine;
    let timely = [
        ("in_time", counts.in_time),
        ("late", counts.late),
        ("told_by_engine", told),
        ("engine_busy", busy),
        ("engine_failed", failed),
    ];
    let unavailable = counts.unavailable.iter();
    let unavailable = unavailable.map(|&(reason, count)| (reason.as_str(), count));
    let outcomes = timely.into_iter().chain(unavailable);
    counters(
        encoder,
        (
            "tokenized_prompts",
            "Prompts by what became of their tokens: in time, late, or why there are none",
        ),
        outcomes.map(|(outcome, count)| (OutcomeLabel { outcome }, count)),
    )?;
    let parts = [("hit", counts.memo_hits), ("miss", counts.memo_misses)];
    counters(
        encoder,
        (
            "tokenizer_memo_parts",
            "Parts of prompts found in the memo, or encoded",
        ),
        parts
            .into_iter()
            .map(|(outcome, count)| (OutcomeLabel { outcome }, count)),
    )?;
    let bytes = counts.memo_bytes as f64;
    let help = "Memory of the tokens remembered";
    let unit = Some(&Unit::Bytes);
    encoder
        .encode_descriptor("tokenizer_memo", help, unit, MetricType::Gauge)?
        .encode_gauge(&bytes)
}

fn encode_events(
    encoder: &mut DescriptorEncoder<'_>,
    members: &[(EndpointLabels, Arc<MemberCache>)],
) -> Result<(), Error> {
    let live = members.iter();
    let live = live.map(|(labels, cache)| (labels.clone(), f64::from(u8::from(cache.is_live()))));
    gauges(
        encoder,
        (
            "kv_events_live",
            "1 where KV events come and tell what the endpoint holds",
            None,
        ),
        live,
    )?;
    // Of endpoints that are followed only: most never are.
    let followed = members.iter().filter_map(|(labels, cache)| {
        let counts = cache.following().counts();
        (counts != SubscriptionCounts::default() || !cache.following().states().is_empty())
            .then(|| (labels, cache.following().states(), counts))
    });
    let followed: Vec<_> = followed.collect();
    let states = followed.iter().flat_map(|(labels, states, _)| {
        SubscriptionState::ALL.map(|state| {
            let labels = EndpointStateLabels {
                server: labels.server.clone(),
                endpoint: labels.endpoint.clone(),
                state: state.as_str(),
            };
            let count = states.iter().filter(|&&now| now == state).count();
            (labels, count as f64)
        })
    });
    gauges(
        encoder,
        (
            "kv_event_subscriptions",
            "Publishers of KV events that are followed, one for each data-parallel rank",
            None,
        ),
        states,
    )?;
    for (name, help, value) in EVENT_COUNTERS {
        let rows = followed.iter();
        let rows = rows.map(|(labels, _, counts)| ((*labels).clone(), value(counts)));
        counters(encoder, (name, help), rows)?;
    }
    Ok(())
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    rows: impl Iterator<Item = (L, f64)>,
) -> Result<(), Error> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in rows {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl Iterator<Item = (L, u64)>,
) -> Result<(), Error> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        family
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    Ok(())
}
