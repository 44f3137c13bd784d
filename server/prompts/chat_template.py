"""From a conversation to the prompt's text, by the model's Jinja2 template.

The chat endpoint and the offline `LLM.chat` render here and then tokenise the text without further special tokens; for
a template of a request, `template_worker.py` calls `render`. Whatever goes wrong in a template is an
`InvalidRequestError`.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jinja2
from jinja2 import nodes

from ...engine_core.errors import InvalidRequestError
from . import template_sandbox
from .conversation import template_messages
from .template_sandbox import CACHED_TEMPLATES, compile_template, parse_template, plain

if TYPE_CHECKING:
    from ...engine_core.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

ContentFormat = Literal["auto", "string", "openai"]

MAX_TEMPLATE_CHARACTERS = 256 * 1024
_CONTINUE_MARK = "CONTINUE_FINAL_MESSAGE_TAG "
"""Put behind the final message's text while it is rendered; the text is cut there, as transformers does. A template
that strips messages strips the space."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """All that the text of a prompt depends on: plain data, so that another process can render it."""

    source: str
    """The text of the template."""
    comes_with_request: bool
    """Whether a stranger wrote it."""
    content_format: ContentFormat
    messages: list[dict[str, Any]]
    variables: dict[str, Any]
    """What else the template sees."""
    continue_final_message: bool


def render(rendering: Rendering) -> str:
    """The text of the prompt. Raises `InvalidRequestError`.

    Takes a millisecond or so; a long conversation is better rendered in a thread.
    """
    template, detected = _compile(rendering.source)
    conversation = template_messages(
        rendering.messages,
        content_format=detected if rendering.content_format == "auto" else rendering.content_format,
        knows_developer="developer" in rendering.source,
    )
    continued = _mark_final_message(conversation) if rendering.continue_final_message else None
    variables = {name: plain(value) for name, value in rendering.variables.items()}
    try:
        text = template_sandbox.render(template, {**variables, "messages": conversation})
    except MemoryError:
        raise
    except Exception as error:  # a template can run into any of Python's errors
        param = "chat_template" if rendering.comes_with_request else "messages"
        raise InvalidRequestError(param, f"The chat template failed: {str(error)[:500]}") from None
    return text if continued is None else _cut_at_mark(text, continued)


class ChatTemplate:
    """Renders conversations with the template of the server, of a request, or of the model. Thread-safe."""

    def __init__(
        self, tokenizer: Tokenizer, template: str | None = None, content_format: ContentFormat = "auto"
    ) -> None:
        """`template` is a text (see `load_chat_template`); None takes what the tokenizer brings.

        Raises ValueError when `template` is not valid Jinja2.
        """
        self._special_tokens = tokenizer.special_tokens
        self._templates = tokenizer.chat_templates if template is None else {"default": template}
        self._content_format: ContentFormat = content_format
        if template is not None:
            try:
                compile_template(template)
            except jinja2.TemplateError as error:
                raise ValueError(f"The chat template is not valid Jinja2: {error}") from None

    def render(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """The text of the prompt; the options are those of `rendering`. Raises `InvalidRequestError`."""
        return render(self.rendering(messages, **options))

    def rendering(
        self,
        messages: list[dict[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        chat_template: str | None = None,
        content_format: ContentFormat = "auto",
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> Rendering:
        """What is to be rendered.

        `chat_template` is the text of another template, or the name of one of the model's. `content_format` wins over
        the one that this object was made with.
        `continue_final_message` and `add_generation_prompt` exclude each other: the answer either goes on with the
        final message or begins a new one. Raises `InvalidRequestError`.
        """
        if continue_final_message and add_generation_prompt:
            raise InvalidRequestError(
                "continue_final_message",
                "continue_final_message needs add_generation_prompt to be false: the answer goes on with the message.",
            )
        source = self._choose(chat_template, has_tools=bool(tools))
        return Rendering(
            source=source,
            comes_with_request=source not in self._templates.values(),
            content_format=self._content_format if content_format == "auto" else content_format,
            messages=messages,
            variables={
                **self._special_tokens,
                **(chat_template_kwargs or {}),
                "tools": tools,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt,
            },
            continue_final_message=continue_final_message,
        )

    @property
    def source(self) -> str | None:
        """The template of conversations without tools, where the model has any."""
        return self._choose(None, has_tools=False) if self._templates else None

    def text_for_tools(self) -> str | None:
        """The text of the template that conversations with tools are rendered with; None without any."""
        return self._choose(None, has_tools=True) if self._templates else None

    def _choose(self, given: str | None, *, has_tools: bool) -> str:
        """The text of the template to use."""
        if given is not None:
            if len(given) > MAX_TEMPLATE_CHARACTERS:
                raise InvalidRequestError(
                    "chat_template",
                    f"chat_template has {len(given)} characters; {MAX_TEMPLATE_CHARACTERS} are allowed.",
                )
            return self._templates.get(given, given)
        if not self._templates:
            raise InvalidRequestError(
                "messages",
                "This model has no chat template. Start the server with --chat-template, give chat_template in the "
                "request, or use /v1/completions.",
            )
        name = "tool_use" if has_tools and "tool_use" in self._templates else "default"
        return self._templates[name] if name in self._templates else next(iter(self._templates.values()))


def _compile(source: str) -> tuple[jinja2.Template, Literal["string", "openai"]]:
    try:
        return compile_template(source), detect_content_format(source)
    except (jinja2.TemplateError, RecursionError, SyntaxError, ValueError) as error:
        raise InvalidRequestError("chat_template", f"The chat template is not valid Jinja2: {error}") from None


def load_chat_template(chat_template: str | Path | None, *, is_literal: bool = False) -> str | None:
    """The text of a template: of the file at this path, or the argument itself where it looks like Jinja2.

    None stays None. Raises ValueError when it is neither.
    """
    template = None if chat_template is None else str(chat_template)
    if template is None or is_literal:
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if not any(mark in template for mark in "{}\n"):
            raise ValueError(f"The chat template {template!r} cannot be read, and is none itself: {error}") from None
    # On a command line, line breaks are written as \n.
    return template if "\n" in template else template.replace("\\n", "\n")


@functools.lru_cache(maxsize=CACHED_TEMPLATES)
def detect_content_format(source: str) -> Literal["string", "openai"]:
    """ "openai" when a template loops over the content of messages, so that it wants a list of parts; else "string".

    Logged once a template. Raises `jinja2.TemplateError`.
    """
    tree = parse_template(source)
    aliases = {
        node.target.name
        for node in tree.find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name) and _is_content(node.node, set())
    }
    loops = any(_is_content(loop.iter, aliases) for loop in tree.find_all(nodes.For))
    content_format: Literal["string", "openai"] = "openai" if loops else "string"
    logger.info("Detected the chat template content format to be %r.", content_format)
    return content_format


def _is_content(node: nodes.Node, aliases: set[str]) -> bool:
    """Whether an expression is `message['content']`, `message.content`, a filter or slice of it, or a name for it."""
    while isinstance(node, nodes.Filter) or (isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)):
        if node.node is None:
            return False
        node = node.node
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Name) and node.name in aliases


def _mark_final_message(conversation: list[dict[str, Any]]) -> str:
    """Put the mark behind the final message's text; that text."""
    final = conversation[-1]
    content = final["content"]
    if not content:
        raise InvalidRequestError("continue_final_message", "The final message has no text to go on with.")
    if isinstance(content, str):
        final["content"] = content + _CONTINUE_MARK
        return content
    text = content[-1]["text"]
    content[-1]["text"] = text + _CONTINUE_MARK
    return text


def _cut_at_mark(text: str, continued: str) -> str:
    """The rendered text up to the end of the final message."""
    position = text.rfind(_CONTINUE_MARK.rstrip())
    if position < 0 or continued.strip() not in text:
        raise InvalidRequestError(
            "continue_final_message", "The chat template does not write out the text of the final message."
        )
    if text.startswith(_CONTINUE_MARK, position):
        return text[:position]
    return text[:position].rstrip()
