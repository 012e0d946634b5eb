"""Request bodies: typed, bounded, with errors that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dms_server.errors import BadRequestError

M = TypeVar("M", bound=BaseModel)


class Body(BaseModel):
    """A request body: unknown fields are left aside, so that newer clients can talk to older servers."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


def parse_body(data: bytes, model: type[M]) -> M:
    """Return JSON bytes as `model`. Raises BadRequestError that names the field."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise _refusal(error) from error


def parse_values(values: Mapping[str, str], model: type[M]) -> M:
    """Return query parameters as `model`. Raises BadRequestError that names the parameter."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> BadRequestError:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return BadRequestError("the body is not JSON; send one JSON object")
    where = ".".join(str(part) for part in first["loc"]) or "body"
    return BadRequestError(f"{where[:80]}: {first['msg'][:200]}")
