"""The engine core: requests in, tokens out.

One process runs one busy loop: it drains the socket, lets the scheduler fill a budget of tokens, runs the model once
over the flat batch, samples, and sends the new tokens. The offline API runs the same core in process.

May import `kernels` and `guided`; never `server`. The modules at the bottom (`config`, `errors`, `messages`,
`sampling_params`) import neither torch nor transformers, so that the front-end can share them and stay small.
"""
