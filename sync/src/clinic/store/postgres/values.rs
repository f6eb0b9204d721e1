//! Values on their way to PostgreSQL and back: the type that a column has decides how.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::clinic::store::sql::Cell;

/// 2000-01-01, from which PostgreSQL counts.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

type Failed = Box<dyn Error + Sync + Send>;

#[derive(Debug, thiserror::Error)]
#[error("a value does not fit its column")]
struct Misfit;

/// Written without what it holds: a parcel is nobody's to read in a log.
impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cell")
    }
}

fn micros(date: &str) -> Result<i64, Failed> {
    let date: jiff::Timestamp = date.parse().map_err(|_| Misfit)?;
    Ok(date.as_microsecond() - EPOCH_MICROS)
}

impl ToSql for Cell {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failed> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *ty == Type::INT8 => number.to_sql(ty, out),
            Self::Int(number) if *ty == Type::INT4 => i32::try_from(*number)?.to_sql(ty, out),
            Self::Real(number) if *ty == Type::FLOAT8 => number.to_sql(ty, out),
            Self::Text(date) if *ty == Type::TIMESTAMPTZ => micros(date)?.to_sql(&Type::INT8, out),
            // The one character that PostgreSQL's text cannot hold.
            Self::Text(text) if *ty == Type::TEXT => text.replace('\0', "\u{fffd}").to_sql(ty, out),
            Self::Bytes(bytes) if *ty == Type::BYTEA => bytes.to_sql(ty, out),
            Self::Int(_) | Self::Real(_) | Self::Text(_) | Self::Bytes(_) => Err(Misfit.into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::FLOAT8, Type::TIMESTAMPTZ, Type::TEXT, Type::BYTEA].contains(ty)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Failed> {
        Ok(match *ty {
            Type::BOOL => Self::Int(bool::from_sql(ty, raw)?.into()),
            Type::INT4 => Self::Int(i32::from_sql(ty, raw)?.into()),
            Type::INT8 => Self::Int(i64::from_sql(ty, raw)?),
            Type::FLOAT8 => Self::Real(f64::from_sql(ty, raw)?),
            Type::BYTEA => Self::Bytes(Vec::from_sql(ty, raw)?),
            Type::TIMESTAMPTZ => {
                let micros = i64::from_sql(&Type::INT8, raw)?.saturating_add(EPOCH_MICROS);
                let date = jiff::Timestamp::from_microsecond(micros).map_err(|_| Misfit)?;
                Self::Text(format!("{date:.3}"))
            }
            _ => Self::Text(String::from_sql(ty, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failed> {
        Ok(Self::Null)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::BOOL || <Self as ToSql>::accepts(ty)
    }
}
