-- Cycles through a file of requests, one on each line with tabs for its line breaks, and prints the results as one line of
-- JSON.
local requests, at = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local request = line:gsub("\t", "\r\n")
    requests[#requests + 1] = request
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"failed":%d,"broken":%d,"p50_us":%.1f,"p99_us":%.1f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
