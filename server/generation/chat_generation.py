"""From a conversation to the generation that answers it: the one way that all chat endpoints take.

`chat_completions.py` has the request as it came; `responses.py` and `messages.py` have made a `ChatCompletionRequest`
of theirs.
"""

from __future__ import annotations

from ..constraints.constraint import request_constraint
from ..engine_link.input_processor import Prompt
from ..prompts.chat_prompt import render_chat_prompt
from ..protocol.chat import ChatCompletionRequest
from ..services import Services
from ..tools.tool_choice import plan_tools
from .generation import Generation
from .sampling import chat_params, check_stream_fields, refuse_unsupported


async def chat_generation(
    services: Services, request: ChatCompletionRequest, *, id: str, model: str, prompts: list[Prompt] | None = None
) -> Generation:
    """Check the request, make its prompt, and get ready to generate. Raises `InvalidRequestError` and `ApiError`.

    `prompts` where they have been made already: of several conversations that the request stands for.
    """
    refuse_unsupported(request)
    check_stream_fields(request)
    params = chat_params(request, services.default_sampling, max_logprobs=services.config.max_logprobs)
    constraint = request_constraint(request, services.config.guided_decoding_backend)
    tools = plan_tools(
        services.tools,
        tools=request.tools,
        tool_choice=request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
        constraint=constraint,
        backend=request.guided_decoding_backend or services.config.guided_decoding_backend,
    )
    if tools is not None:
        constraint = tools.constraint
        if tools.shows_special_tokens:
            params = params.clone(skip_special_tokens=False)
    prompts = prompts or [await chat_prompt(services, request)]
    await services.check_engine()
    return Generation(
        services,
        id=id,
        model=model,
        request=request,
        params=params,
        prompts=prompts,
        constraint=constraint,
        tools=tools,
    )


async def chat_prompt(services: Services, request: ChatCompletionRequest) -> Prompt:
    """The prompt of a conversation. Raises `InvalidRequestError`."""
    return await services.input_processor.encode_prompt(
        await render_chat_prompt(services, request),
        add_special_tokens=bool(request.add_special_tokens),
        truncate_prompt_tokens=request.truncate_prompt_tokens,
        truncation_side=request.truncation_side or "left",
    )
