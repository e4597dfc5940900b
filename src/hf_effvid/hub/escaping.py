"""Text of a stranger (class names, data-set names) made harmless inside a Markdown page."""

import html
import re
import unicodedata


# every ASCII character that can begin or end a Markdown construct; "|" would end a table cell
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$%^=:@/])")


def escape_markdown(text, limit: int = 100) -> str:
    """One line of plain text: no HTML, no Markdown, no links, no control or direction-changing characters.

    Args:
        text: anything; its `str` is used.
        limit: longer text is cut and ends in an ellipsis.

    Returns:
        Text that a Markdown page shows literally, also inside a table.
    """
    # Cc: controls, Cf: invisible and direction-changing, Cs/Co: surrogates and private use; Zl/Zp: line breaks
    visible = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else c for c in str(text))
    visible = " ".join(visible.split())
    if len(visible) > limit:
        visible = visible[: limit - 1] + "…"
    # "&" first becomes "&amp;", and the backslashes come last, so that nothing is escaped twice
    return _MARKDOWN.sub(r"\\\1", html.escape(visible, quote=True).replace("&#x27;", "&apos;"))


def escape_code(text, limit: int = 400) -> str:
    """Inline code that no content can break out of: backticks and control characters become spaces."""
    visible = "".join(" " if unicodedata.category(c)[0] == "C" or c in "`|\u2028\u2029" else c for c in str(text))
    visible = " ".join(visible.split())
    return f"`{visible[:limit]}`" if visible else "` `"
