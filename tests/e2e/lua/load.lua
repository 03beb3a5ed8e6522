-- Writes a keyspace as Outpost before v0.6 left it, as far as this server owns it: the rest is for the others.
-- EVAL … 0 FIRST COUNT. Answers how many keys it wrote.
--
-- A tenant has two destinations and their summary; every tenth tenant is a tombstone that expires in 7 days.
local first, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local written = 0

local function put(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    if not string.find(reply.err, 'non local key', 1, true) then error(reply.err) end
    return false
  end
  written = written + 1
  return true
end

for number = first, first + count - 1 do
  local id = 'e2e-' .. number
  if number % 10 == 0 then
    if put('HSET', 'tenant:' .. id, 'deleted_at', '2026-01-02T03:04:05Z') then
      redis.call('PEXPIRE', 'tenant:' .. id, 7 * 24 * 3600 * 1000)
    end
  else
    put('HSET', 'tenant:' .. id, 'id', id, 'created_at', '2025-06-07T08:09:10Z')
    local summary = {}
    for _, suffix in ipairs({ 'a', 'b' }) do
      local destination = id .. '-' .. suffix
      put('HSET', 'tenant:' .. id .. ':destination:' .. destination, 'id', destination, 'type', 'webhook',
        'topics', '*', 'config', '{"url":"https://example.com/' .. suffix .. '"}',
        'credentials', string.char(0, 255, 10, 13) .. redis.sha1hex(destination), 'created_at', '2025-06-07T08:09:11Z')
      table.insert(summary, destination)
      table.insert(summary, '{"id":"' .. destination .. '","type":"webhook","topics":["*"],"disabled":false}')
    end
    put('HSET', 'tenant:' .. id .. ':destinations', unpack(summary))
  end
end
return written
