"""Tables as DataFrames of pandas, which is imported when the first one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


def data_frame(columns: dict[str, Any], index: Any, name: str) -> pandas.DataFrame:
    """A DataFrame of these columns, by an index of this name; an ImportError that names the extra if pandas is missing."""
    try:
        import pandas
    except ImportError:
        raise ImportError("to_frame needs pandas: python -m pip install 'adjode[tables]'.") from None
    return pandas.DataFrame(columns, index=pandas.Index(index, name=name))
