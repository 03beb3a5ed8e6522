//! The grammar of Outpost's key names: which entities a name may stand for.
//!
//! Owns how names are written and every way in which one can be read; ids are arbitrary bytes, so
//! there may be several. Refuses to choose between readings: that takes content.

/// Prefix of a tenant's keys, legacy and current in Outpost's layout.
pub(in crate::migrations) const TENANT_PREFIX: &[u8] = b"tenant:";
/// Prefix of a tenant's keys in the documented layout.
pub(in crate::migrations) const TENANT_TAG_PREFIX: &[u8] = b"{tenant:";
/// Prefix of destination summaries as the documentation names them.
pub(in crate::migrations) const DOCUMENTED_SUMMARY_PREFIX: &[u8] = b"destination_summary:";

/// Suffix of a legacy summary.
pub(in crate::migrations) const SUMMARY_SUFFIX: &[u8] = b":destinations";
/// What stands between tenant and destination in a legacy key.
pub(in crate::migrations) const DESTINATION_INFIX: &[u8] = b":destination:";

/// What one key stands for. Ids are parts of the key that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::migrations) enum Entity<'k> {
    /// A tenant.
    Tenant {
        /// Its id.
        id: &'k [u8],
    },
    /// The summary of a tenant's destinations.
    Summary {
        /// The tenant's id.
        tenant: &'k [u8],
    },
    /// A destination.
    Destination {
        /// The id of the tenant that owns it.
        tenant: &'k [u8],
        /// Its own id.
        id: &'k [u8],
    },
}

impl<'k> Entity<'k> {
    /// The name under which entities of this kind are counted.
    pub(in crate::migrations) fn kind(self) -> &'static str {
        match self {
            Self::Tenant { .. } => "tenant",
            Self::Summary { .. } => "summary",
            Self::Destination { .. } => "destination",
        }
    }

    /// The id of the tenant to which it belongs.
    pub(in crate::migrations) fn tenant(self) -> &'k [u8] {
        match self {
            Self::Tenant { id } => id,
            Self::Summary { tenant } | Self::Destination { tenant, .. } => tenant,
        }
    }

    /// The value that its `id` field must have; a summary has no such field.
    pub(in crate::migrations) fn expected_id(self) -> Option<&'k [u8]> {
        match self {
            Self::Tenant { id } | Self::Destination { id, .. } => Some(id),
            Self::Summary { .. } => None,
        }
    }
}

/// Every way to cut `text` at `separator`, overlapping ones too: `:destination:destination:` holds
/// two cuts.
pub(in crate::migrations) fn cuts<'k>(
    text: &'k [u8],
    separator: &'k [u8],
) -> impl Iterator<Item = (&'k [u8], &'k [u8])> {
    text.windows(separator.len())
        .enumerate()
        .filter(move |(_, window)| *window == separator)
        .map(move |(at, _)| (&text[..at], &text[at + separator.len()..]))
}

/// Every destination for which a legacy key `tenant:<rest>` may stand.
pub(in crate::migrations) fn legacy_destinations(rest: &[u8]) -> impl Iterator<Item = Entity<'_>> {
    cuts(rest, DESTINATION_INFIX).map(|(tenant, id)| Entity::Destination { tenant, id })
}

/// The summary for which a legacy key `tenant:<rest>` may stand.
pub(in crate::migrations) fn legacy_summary(rest: &[u8]) -> Option<Entity<'_>> {
    rest.strip_suffix(SUMMARY_SUFFIX).map(|tenant| Entity::Summary { tenant })
}

/// Whether a legacy key `tenant:<rest>` has the name of a summary or a destination.
pub(in crate::migrations) fn has_known_name(rest: &[u8]) -> bool {
    legacy_summary(rest).is_some() || legacy_destinations(rest).next().is_some()
}

/// Every entity for which `tenant:<rest>` may stand in Outpost's current layout.
pub(in crate::migrations) fn outpost_readings(rest: &[u8]) -> impl Iterator<Item = Entity<'_>> {
    let braced = rest.strip_prefix(b"{").unwrap_or_default();
    let destinations = cuts(braced, b"}:destination:").map(|(tenant, id)| Entity::Destination { tenant, id });
    let summary = braced.strip_suffix(b"}:destinations").map(|tenant| Entity::Summary { tenant });
    let tenant = braced.strip_suffix(b"}:tenant").map(|id| Entity::Tenant { id });
    destinations.chain(summary).chain(tenant)
}

/// Every way to read `{tenant:<rest>`: the tenant's id, and what follows its tag (nothing, or a
/// suffix from its colon on).
pub(in crate::migrations) fn tenant_tag_readings(rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    cuts(rest, b"}").filter(|(_, suffix)| suffix.is_empty() || suffix.starts_with(b":"))
}
