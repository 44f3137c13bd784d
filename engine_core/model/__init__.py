"""The model and everything that belongs to it: loading, surgery, attention, the step, sampling."""
